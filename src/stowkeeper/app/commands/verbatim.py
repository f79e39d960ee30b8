"""Commands that read their command line by rules of their own, so that nothing of it is looked at before."""

import inspect
from collections.abc import Callable
from typing import Any

import click


class VerbatimCommand(click.Command):
    """A command that gets its arguments as they stand, those too that look like options, `--` and `--help`."""

    def __init__(self, name: str, function: Callable[[list[str]], int]) -> None:
        super().__init__(name, help=inspect.getdoc(function), add_help_option=False)
        self._function = function

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave everything as it is."""
        ctx.args = args
        return args

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        """Run the command; its result is the exit code."""
        return self._function(ctx.args)


def verbatim_command(name: str) -> Callable[[Callable[[list[str]], int]], VerbatimCommand]:
    """Make a command of a function that takes the arguments and returns the exit code."""
    return lambda function: VerbatimCommand(name, function)
