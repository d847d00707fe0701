# SPDX-License-Identifier: Apache-2.0
"""docs/cli.md, made from the click tree: `python -m valkyrie.control.cli.reference > docs/cli.md`."""

from collections.abc import Iterator

from valkyrie.control.cli.exits import MEANINGS
from valkyrie.control.cli.tree import CommandText, commands

INTRODUCTION = """\
# valkyrie-ctl

<!-- Made by `python -m valkyrie.control.cli.reference > docs/cli.md`; change the commands instead. -->

`valkyrie-ctl` talks to `valkyried` over its Unix socket and uses nothing but the [API](api.md).
Reading needs the group `valkyrie-read` or `valkyrie`, changing needs `valkyrie` or root.

- Every command that prints takes `-o table`, `-o json` or `-o yaml`. JSON and YAML hold what the API says.
- On a terminal tables are drawn in colour (`NO_COLOR=1`: without), elsewhere as plain aligned text.
- Errors go to standard error as two lines: what happened, and what to do about it. A wrong word is named,
  with the word that was probably meant.
- Rates are written `1000/s`, `50mbit/s`, `2.5MB/s`, `10/h`; times `60s`, `10m`, `1h30m`, `2d`;
  bursts `2000` (packets) or `64KB`.
"""

ENVIRONMENT = """\
## Environment

| variable | meaning |
|---|---|
| `VALKYRIE_SOCKET` | where valkyried listens; `--socket` comes first |
| `NO_COLOR` | when set, no colours |
| `SSH_CONNECTION` | set by sshd; `attach` protects the client's address in it, also through sudo |

## Files that `limits override --file` and `limits apply` read

An override a line, `PREFIX RATE [BURST]`; what follows a `#` is a comment:

```
203.0.113.0/24   5000/s  10000
2001:db8::/48    5000/s          # burst: one second's worth
```

A policy is a document as `limits export` prints it. What it does not name is removed. JSON is read
much faster than YAML, which matters from some thousands of overrides on.

```yaml
limits:
  - name: web
    match: proto tcp dport 80,443
    key: src/32
    rate: 1000/s
    burst: 2000
    action: drop
    overrides:
      - prefix: 203.0.113.0/24
        rate: 5000/s
exempt:
  - prefix: 192.0.2.0/24
    note: monitoring
ban: []
```

## Completion and man page

```
source <(valkyrie-ctl completion bash)                       # in ~/.bashrc
valkyrie-ctl completion zsh > ~/.zfunc/_valkyrie-ctl         # in a folder of $fpath
python -m valkyrie.control.cli.man > valkyrie-ctl.1
```

Completion knows commands, options, keys, names of limits and of NICs, exempt and banned prefixes.
Names come from the daemon; without it there are none.
"""


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def section(command: CommandText) -> Iterator[str]:
    """A command in Markdown."""
    yield f"### {command.path}\n"
    yield f"```\n{command.path} {command.usage}\n```\n"
    for text in command.help:
        yield f"{text}\n"
    if command.examples:
        yield "\n".join(("```", *command.examples, "```\n"))
    if command.options:
        yield "| option | meaning |\n|---|---|"
        for option in command.options:
            yield f"| `{cell(option.forms)}` | {cell(option.help)} |"
        yield ""


def exit_codes() -> Iterator[str]:
    yield "## Exit codes\n\n| code | meaning |\n|---|---|"
    for code, meaning in MEANINGS:
        yield f"| {code} | {meaning} |"
    yield ""


def reference() -> str:
    """The whole document."""
    tree = commands()
    parts = [INTRODUCTION, "## Commands\n"]
    for command in tree:
        parts += section(command)
    parts += exit_codes()
    return "\n".join(parts) + "\n" + ENVIRONMENT


if __name__ == "__main__":
    print(reference(), end="")
