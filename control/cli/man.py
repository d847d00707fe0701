# SPDX-License-Identifier: Apache-2.0
"""valkyrie-ctl.1, made from the click tree: `python -m valkyrie.control.cli.man > valkyrie-ctl.1`."""

from collections.abc import Iterator

from valkyrie.control.cli.exits import MEANINGS
from valkyrie.control.cli.tree import CommandText, commands


def escaped(text: str) -> str:
    """Text that roff prints as it is: backslashes, dashes, and a dot or quote at the start of a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in text.split("\n"))


def body(command: CommandText) -> Iterator[str]:
    """What a command does, how it is typed, its options."""
    for text in command.help:
        yield from (".PP", escaped(text))
    if command.examples:
        yield from (".PP", ".nf", *map(escaped, command.examples), ".fi")
    for option in command.options:
        yield from (".TP", f"\\fB{escaped(option.forms)}\\fR", escaped(option.help))


def command_lines(command: CommandText) -> Iterator[str]:
    yield f".SS {escaped(command.path)} {escaped(command.usage)}"
    yield from body(command)


def page(version: str) -> str:
    """The man page in roff."""
    root, *rest = commands()
    lines = [
        f'.TH VALKYRIE\\-CTL 1 "" "valkyrie {escaped(version)}" "Valkyrie"',
        ".SH NAME",
        "valkyrie\\-ctl \\- limit the rate of packets at the XDP hook",
        ".SH SYNOPSIS",
        ".B valkyrie\\-ctl",
        escaped(root.usage),
        ".SH DESCRIPTION",
    ]
    lines += body(root)
    lines.append(".SH COMMANDS")
    for command in rest:
        lines += command_lines(command)
    lines.append(".SH EXIT STATUS")
    for code, meaning in MEANINGS:
        lines += [".TP", str(code), escaped(meaning)]
    lines += [
        ".SH ENVIRONMENT",
        ".TP",
        "VALKYRIE_SOCKET",
        "where valkyried listens",
        ".TP",
        "NO_COLOR",
        "when set, no colours",
        ".SH FILES",
        ".TP",
        "/run/valkyrie/valkyried.sock",
        "the socket of valkyried",
        ".TP",
        "/etc/valkyrie/valkyrie.yaml",
        "settings of valkyried",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from importlib.metadata import version as installed

    print(page(installed("valkyrie")), end="")
