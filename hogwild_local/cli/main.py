"""The command line: a group of commands, each in a module of this package.

The context's object may be an Engine, which then takes the place of the compiled one: tests enter here.
"""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Any

import click

from .. import __version__
from ..errors import HogwildError, InvalidArgument
from .bench import bench
from .chat import chat
from .eval import evaluate
from .rpc_server import rpc_server
from .run import run
from .runahead import runahead
from .serve import serve
from .terminal import Terminated, note, say, signals_as_exceptions


class Commands(click.Group):
    """Turns errors into one line on stderr: exit code 2 for a wrong argument, 1 for the rest; 130 after Ctrl+C, and
    128 and its number after another signal."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with signals_as_exceptions():
                return super().invoke(ctx)
        except Terminated as signal:
            ctx.exit(128 + signal.number)
        except KeyboardInterrupt:
            ctx.exit(130)
        except (HogwildError, ImportError) as error:
            note(f"hogwild: {' '.join(str(error).split())}")
            ctx.exit(2 if isinstance(error, InvalidArgument) else 1)


def _show_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        try:
            theirs = importlib.metadata.version("llama-cpp-python")
        except importlib.metadata.PackageNotFoundError:
            theirs = "is not installed"
        say(f"hogwild-local {__version__}, llama-cpp-python {theirs}")
        ctx.exit()


# Every option has an environment variable of its own: HOGWILD_RUN_MAX_PASSES is run's --max-passes.
SETTINGS = {
    "auto_envvar_prefix": "HOGWILD",
    "help_option_names": ["-h", "--help"],
    "show_default": True,
    "max_content_width": 110,
}


@click.group(cls=Commands, context_settings=SETTINGS)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the versions of hogwild-local and of llama-cpp-python, and end.",
)
def cli() -> None:
    """Several workers of one language model, thinking at the same time over one shared KV cache."""


cli.add_command(bench)
cli.add_command(chat)
cli.add_command(evaluate)
cli.add_command(rpc_server)
cli.add_command(run)
cli.add_command(runahead)
cli.add_command(serve)


def main() -> None:
    """The entry point `hogwild`."""
    sys.exit(cli(prog_name="hogwild"))
