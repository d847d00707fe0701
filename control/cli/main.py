# SPDX-License-Identifier: Apache-2.0
"""The command tree of valkyrie-ctl: nouns and the verbs that need none."""

import errno
import os
import sys

import click

from valkyrie.control.cli.exits import CHECK_FAILED, MEANINGS
from valkyrie.control.cli.group import Root, tell
from valkyrie.control.cli.options import DEFAULT_SOCKET, examples
from valkyrie.control.errors import ValkyrieError

PROGRAM = "valkyrie-ctl"
HERE = "valkyrie.control.cli"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

TABLE = {
    "attach": f"{HERE}.nics:attach",
    "confirm": f"{HERE}.nics:confirm",
    "detach": f"{HERE}.nics:detach",
    "status": f"{HERE}.status:status",
    "doctor": f"{HERE}.doctor:doctor",
    "limits": f"{HERE}.limits:limits",
    "exempt": f"{HERE}.prefixes:exempt",
    "ban": f"{HERE}.prefixes:ban",
    "buckets": f"{HERE}.buckets:buckets",
    "top": f"{HERE}.top:top",
    "events": f"{HERE}.events:events",
    "capture": f"{HERE}.capture:capture",
    "alerts": f"{HERE}.alerts:alerts",
    "audit": f"{HERE}.audit:audit",
    "creds": f"{HERE}.credentials:creds",
    "store": f"{HERE}.store:store",
    "notify": f"{HERE}.notify:notify",
    "standby": f"{HERE}.standby:standby",
    "telemetry": f"{HERE}.telemetry:telemetry",
    "completion": f"{HERE}.completion:completion",
}

FIRST_STEPS = examples(
    "valkyrie-ctl attach eth0 --confirm 60s",
    "valkyrie-ctl confirm eth0",
    "valkyrie-ctl limits set web --match 'proto tcp dport 80,443' --key src/32 --rate 1000/s --burst 2000",
    "valkyrie-ctl top",
)
EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"{code:>5}  {meaning}" for code, meaning in MEANINGS)


def show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Prints the installed version; the metadata is read only when asked for."""
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"{PROGRAM} {version('valkyrie')}")
    ctx.exit()


SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(cls=Root, table=TABLE, epilog=f"{FIRST_STEPS}\n\n{EXIT_CODES}", context_settings=SETTINGS)
@click.option(
    "--socket",
    envvar="VALKYRIE_SOCKET",
    show_envvar=True,
    default=DEFAULT_SOCKET,
    show_default=True,
    metavar="PATH",
    help="Where valkyried listens.",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=show_version,
    help="Print the version.",
)
@click.pass_context
def cli(ctx: click.Context, socket: str) -> None:
    """Limit the rate of packets before the kernel's network stack sees them."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main() -> None:
    """The program valkyrie-ctl."""
    try:
        cli(prog_name=PROGRAM)
    except OSError as error:
        if error.errno not in FULL:
            raise
        tell(
            ValkyrieError(f"the output cannot be written: {error.strerror}", "make room, or write elsewhere")
        )
        # What waits to be written would be tried again on the way out, and fail there with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CHECK_FAILED)


if __name__ == "__main__":
    main()
