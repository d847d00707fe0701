# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Install as a service, and uninstall. Sourced by ./appliance, whose functions it uses.

OPT=/opt/valkyrie # a directory for each release, and the link `current`
UNIT=/etc/systemd/system/valkyried.service
WANTED=/etc/systemd/system/multi-user.target.wants/valkyried.service
COMMAND_LINK=/usr/local/bin/valkyrie-ctl
BASH_COMPLETION=/usr/local/share/bash-completion/completions/valkyrie-ctl
ZSH_COMPLETION=/usr/local/share/zsh/site-functions/_valkyrie-ctl
MAN_PAGE=/usr/local/share/man/man1/valkyrie-ctl.1
SETTINGS=/etc/valkyrie/valkyrie.yaml
STATE=/var/lib/valkyrie
RELEASE_FILES=(pyproject.toml LICENSE .src bpf control adapters)

systemd_runs() { [ -d /run/systemd/system ]; }

# What a release is made of, as a short hash: the same files need no new release.
release_name() {
    { find "${RELEASE_FILES[@]}" -type f -not -path '*/__pycache__/*' -not -path '*.egg-info/*' -print0 |
        sort -z | xargs -0 sha256sum && readlink -f "$PYTHON"; } | sha256sum | cut -c1-12
}

# A complete environment aside in $1; `current` is switched to it afterwards by one rename.
make_release() {
    local copy
    copy=$(mktemp -d)
    rm -rf "$1"
    cp -a "${RELEASE_FILES[@]}" "$copy"
    if ! { "$PYTHON" -m venv --without-pip --system-site-packages "$1" &&
        "$1/bin/python" -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir "$copy/made" "$copy" &&
        "$1/bin/python" -m pip install --quiet "$copy"/made/*.whl; }; then
        rm -rf "$copy" "$1"
        fail "cannot make $1." "The lines above tell why; what was installed before is untouched."
    fi
    rm -rf "$copy"
    touch "$1/complete"
}

switch_release() {
    ln -sfn "$1" "$OPT/current.new"
    mv -T "$OPT/current.new" "$OPT/current"
    find "$OPT" -mindepth 1 -maxdepth 1 -type d -not -path "$1" -exec rm -rf {} +
}

install_files() {
    local bin=$OPT/current/bin
    mkdir -p "${UNIT%/*}" "${COMMAND_LINK%/*}" "${BASH_COMPLETION%/*}" "${ZSH_COMPLETION%/*}" "${MAN_PAGE%/*}" "${SETTINGS%/*}"
    ln -sfn "$bin/valkyrie-ctl" "$COMMAND_LINK"
    "$bin/valkyrie-ctl" completion bash >"$BASH_COMPLETION"
    "$bin/valkyrie-ctl" completion zsh >"$ZSH_COMPLETION"
    "$bin/python" -m valkyrie.control.cli.man >"$MAN_PAGE"
    install -m 0644 control/host/valkyried.service "$UNIT"
    [ -e "$SETTINGS" ] || install -m 0644 control/host/valkyrie.yaml "$SETTINGS"
}

start_service() {
    if systemd_runs; then
        systemctl daemon-reload
        systemctl --quiet enable valkyried.service
        systemctl restart valkyried.service ||
            fail "valkyried is installed but does not start." "See: journalctl -u valkyried -n 50"
        say "valkyried runs; next: valkyrie-ctl attach NIC --confirm 60s"
    else
        mkdir -p "${WANTED%/*}"
        ln -sfn "$UNIT" "$WANTED"
        say "systemd does not run here: valkyried is enabled and starts with the next boot"
        say "to run it now: $OPT/current/bin/valkyried"
    fi
}

host_install() {
    local release
    [ $# -eq 0 ] || fail "install takes no arguments, got '$*'." "Run: sudo ./appliance install"
    install_packages "${RUN_PACKAGES[@]}" "${BUILD_PACKAGES[@]}"
    groupadd --system --force valkyrie
    groupadd --system --force valkyrie-read
    release=$OPT/$(release_name)
    if [ ! -e "$release/complete" ]; then
        say "installing into $release"
        mkdir -p "$OPT"
        make_release "$release"
    fi
    switch_release "$release"
    install_files
    start_service
}

# Take the program off every NIC and unpin it, wherever the settings let it be pinned.
detach_all() {
    [ -x "$OPT/current/bin/python" ] || return 0
    "$OPT/current/bin/python" -m valkyrie.control.host.detach
}

# Folders that install_files made, if nobody else has put anything there.
remove_empty() {
    local folder
    for folder in "$@"; do
        [ ! -d "$folder" ] || rmdir --ignore-fail-on-non-empty "$folder"
    done
}

host_uninstall() {
    local purge=${1:-}
    case "$#$purge" in
        0 | 1--purge) ;;
        *) fail "uninstall does not know '$*'." "Run: sudo ./appliance uninstall [--purge]" ;;
    esac
    if systemd_runs && [ -e "$UNIT" ]; then
        systemctl --quiet disable --now valkyried.service
    fi
    detach_all
    rm -rf "$OPT" "$UNIT" "$WANTED" "$COMMAND_LINK" "$BASH_COMPLETION" "$ZSH_COMPLETION" "$MAN_PAGE"
    remove_empty "${BASH_COMPLETION%/*}" "${BASH_COMPLETION%/*/*}" "${ZSH_COMPLETION%/*}" "${ZSH_COMPLETION%/*/*}" "${MAN_PAGE%/*}"
    if systemd_runs; then
        systemctl daemon-reload
    fi
    if [ "$purge" = --purge ]; then
        rm -rf "$STATE" "${SETTINGS%/*}"
        for group in valkyrie valkyrie-read; do
            ! getent group "$group" >/dev/null || groupdel "$group"
        done
        say "removed, with state, settings and groups"
    else
        say "removed; state stays in $STATE and settings in ${SETTINGS%/*} (--purge removes them)"
    fi
}
