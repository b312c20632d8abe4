"""The command line: a group of commands, each in a module of this package.

The context's object may be an Engine, which then takes the place of the compiled one: tests enter here.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from ..errors import HogwildError, InvalidArgument
from .bench import bench
from .eval import evaluate
from .rpc_server import rpc_server
from .run import run


class Commands(click.Group):
    """Turns errors into one line on stderr: exit code 2 for a wrong argument, 1 for the rest; 130 after
    Ctrl+C."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(130)
        except (HogwildError, ImportError) as error:
            click.echo(f"hogwild: {' '.join(str(error).split())}", err=True)
            ctx.exit(2 if isinstance(error, InvalidArgument) else 1)


# Every option has an environment variable of its own: HOGWILD_RUN_MAX_PASSES is run's --max-passes.
SETTINGS = {"auto_envvar_prefix": "HOGWILD", "help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=Commands, context_settings=SETTINGS)
def cli() -> None:
    """Several workers of one language model, thinking at the same time over one shared KV cache."""


cli.add_command(bench)
cli.add_command(evaluate)
cli.add_command(rpc_server)
cli.add_command(run)


def main() -> None:
    """The entry point `hogwild`."""
    sys.exit(cli(prog_name="hogwild"))
