# SPDX-License-Identifier: Apache-2.0
"""telemetry: metrics, traces and the log's level, changed while the daemon runs."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from valkyrie.control.cli.credentials import CredentialName
from valkyrie.control.cli.options import examples, prints, with_client
from valkyrie.control.cli.output import Block, Facts, Output
from valkyrie.control.errors import InvalidInput

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

Function = TypeVar("Function", bound=Callable[..., Any])

PATH = "/v1/telemetry"
NONE = "none"
CLEARED = ("headers_credential", "ca", "prometheus_listen")


class NameOrNone(CredentialName):
    """A credential by name, or `none`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return NONE if value == NONE else super().convert(value, param, ctx)


OPTIONS = (
    click.option("--endpoint", metavar="URL", help="The collector, as http://localhost:4318."),
    click.option("--protocol", type=click.Choice(["http", "grpc"]), help="How OTLP is sent."),
    click.option(
        "--headers-credential", type=NameOrNone(), help="Credential that holds headers, name=value; or none."
    ),
    click.option("--interval", "interval_seconds", type=float, metavar="SECONDS", help="Between batches."),
    click.option("--timeout", "timeout_seconds", type=float, metavar="SECONDS", help="Of one delivery."),
    click.option("--ca", metavar="FILE", help="PEM of the authorities to trust; or none."),
    click.option("--traces/--no-traces", default=None, help="Send traces of control operations too."),
)


def of_collector(function: Function) -> Function:
    """The options of what is sent, and where."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def body(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed; `none` takes a setting away."""
    return {
        name: "" if value == NONE and name in CLEARED else value
        for name, value in given.items()
        if value is not None
    }


def when(seconds: float | None) -> str:
    if seconds is None:
        return "none yet"
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def counts(exports: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in exports.items())


def view(answer: Mapping[str, Any]) -> list[Block]:
    prometheus = answer["prometheus"]
    pairs = [
        ("export", answer["state"]),
        ("problem", answer["problem"]),
        ("endpoint", f"{answer['endpoint']} ({answer['protocol']})"),
        ("headers", answer["headers_credential"] or "none"),
        ("interval", f"{answer['interval_seconds']:g} s"),
        ("timeout", f"{answer['timeout_seconds']:g} s"),
        ("traces", "yes" if answer["traces"] else "no"),
        ("last delivery", when(answer["last_delivery"])),
        ("metrics", f"{counts(answer['exports']['metrics'])} batches"),
        ("spans", counts(answer["exports"]["traces"])),
        (
            "prometheus",
            prometheus["problem"] or prometheus["listening"] or "GET /metrics on the API's socket",
        ),
        ("log", f"{answer['log']}, {answer['log_format']}"),
        ("set here", ", ".join(answer["set"]) or "nothing: all as in valkyrie.yaml"),
    ]
    return [Facts([pair for pair in pairs if pair[0] != "problem" or pair[1]])]


@click.group()
def telemetry() -> None:
    """Metrics, traces and logs: what is sent where, changed without a restart."""


@telemetry.command(
    epilog=examples(
        "valkyrie-ctl telemetry enable --endpoint http://otel.example.net:4318",
        "valkyrie-ctl telemetry enable --headers-credential otel-headers --traces",
    )
)
@of_collector
@prints
@with_client
def enable(client: "Client", *, out: Output, **given: Any) -> None:
    """Send metrics to a collector, from now on and after a restart."""
    answer = client.put(PATH, {"enabled": True, **body(given)})
    out.show(answer, lambda: view(answer))


@telemetry.command()
@prints
@with_client
def disable(client: "Client", out: Output) -> None:
    """Send nothing, from now on and after a restart."""
    answer = client.put(PATH, {"enabled": False})
    out.show(answer, lambda: view(answer))


@telemetry.command(
    "set",
    epilog=examples(
        "valkyrie-ctl telemetry set --interval 30 --headers-credential none",
        "valkyrie-ctl telemetry set --prometheus 127.0.0.1:9464",
        "valkyrie-ctl telemetry set --log debug",
    ),
)
@of_collector
@click.option(
    "--prometheus", "prometheus_listen", metavar="HOST:PORT", help="Serve GET /metrics there too; or none."
)
@click.option(
    "--log", type=click.Choice(["debug", "info", "warning", "error"]),
    help="Level of the log, until the daemon ends.",
)  # fmt: skip
@prints
@with_client
def set_(client: "Client", *, out: Output, **given: Any) -> None:
    """Change some; what is not named stays as it is."""
    wanted = body(given)
    if not wanted:
        raise InvalidInput("nothing to set", "valkyrie-ctl telemetry set --help")
    answer = client.put(PATH, wanted)
    out.show(answer, lambda: view(answer))


@telemetry.command()
@prints
@with_client
def reset(client: "Client", out: Output) -> None:
    """Forget what was set here: valkyrie.yaml counts again."""
    answer = client.delete(PATH)
    out.show(answer, lambda: view(answer))


@telemetry.command()
@prints
@with_client
def status(client: "Client", out: Output) -> None:
    """What is sent where, and how that goes."""
    answer = client.get(PATH)
    out.show(answer, lambda: view(answer))
