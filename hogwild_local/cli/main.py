"""The command line: a group of commands, each in a module of this package.

The context's object may be an Engine, which then takes the place of the compiled one: tests enter here.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from ..errors import HogwildError, InvalidArgument
from .terminal import Terminated, note, say, signals_as_exceptions

COMMANDS = {
    "bench": ("bench", "Measure milliseconds a pass, of ours and of llama.cpp's."),
    "chat": ("chat", "Talk with a model: several workers think, one voice replies."),
    "eval": ("evaluate", "Measure how often workers find the right answers."),
    "rpc-server": ("rpc_server", "Lend this machine's devices to models on other machines."),
    "run": ("run", "Let several workers think about a prompt together."),
    "runahead": ("runahead", "Measure prompts that several processes prefill together."),
    "serve": ("serve", "Serve a model to clients of OpenAI's interface."),
}
"""What each is called in the module of its own, which is imported when it is used; and its line in --help."""


class Commands(click.Group):
    """Turns errors into one line on stderr: exit code 2 for a wrong argument, 1 for the rest; 130 after Ctrl+C, and
    128 and its number after another signal. What it lists are names; who uses one gets the command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, listed, rest = super().resolve_command(ctx, args)
        return name, command(name) if name else listed, rest

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
        import importlib.metadata

        from .. import __version__

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


@click.group(
    cls=Commands,
    commands={name: click.Command(name, short_help=line) for name, (_, line) in COMMANDS.items()},
    context_settings=SETTINGS,
)
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


def command(name: str) -> click.Command:
    """One of COMMANDS, imported."""
    called, _ = COMMANDS[name]
    found: click.Command = getattr(import_module(f".{name.replace('-', '_')}", __package__), called)
    return found


def main() -> None:
    """The entry point `hogwild`."""
    sys.exit(cli(prog_name="hogwild"))
