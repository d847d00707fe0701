# SPDX-License-Identifier: Apache-2.0
"""completion: the script that teaches a shell to complete valkyrie-ctl."""

import click
from click.shell_completion import get_completion_class

from valkyrie.control.cli.options import examples

VARIABLE = "_VALKYRIE_CTL_COMPLETE"


@click.command(
    epilog=examples(
        "source <(valkyrie-ctl completion bash)", "valkyrie-ctl completion zsh > ~/.zfunc/_valkyrie-ctl"
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL; it also completes names of limits and NICs."""
    from valkyrie.control.cli.main import PROGRAM

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"this click knows no completion for {shell}", ctx)
    script = kind(ctx.find_root().command, {}, PROGRAM, VARIABLE)
    click.echo(script.source_template % script.source_vars(), nl=False)
