# SPDX-License-Identifier: Apache-2.0
# For those who type make: each target is the command of ./appliance with that name.
COMMANDS := setup demo test vm-test bench lint install uninstall clean

.PHONY: help $(COMMANDS)
help:
	@./appliance help
$(COMMANDS):
	@./appliance $@ $(ARGS)
