"""``asyncpush completion``: the script that lets a shell complete commands, options and files."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

_VARIABLE = "_ASYNCPUSH_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes asyncpush in a shell.

    Put it where the shell looks for such scripts, or evaluate it when the shell starts, as in
    eval "$(asyncpush completion bash)".
    """
    maker = get_completion_class(shell)
    assert maker is not None, "click has all three"
    click.echo(maker(context.find_root().command, {}, "asyncpush", _VARIABLE).source())


def complete_files(
    _context: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Let the shell complete a layout or an archive, which ``click.Path`` could not check."""
    return [CompletionItem(incomplete, type="file")]
