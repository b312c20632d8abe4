"""Commands whose --help shows options in groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator: TypeAlias = Callable[[Function], Function]
Title: TypeAlias = Literal[
    "Model", "Workers", "Server", "Sampling", "Evaluation", "Measurement", "Output", "Devices", "Other"
]

TITLES: tuple[Title, ...] = (
    "Model", "Workers", "Server", "Sampling", "Evaluation", "Measurement", "Output", "Devices", "Other"
)  # fmt: skip


class Option(click.Option):
    """An option that belongs to a group."""

    def __init__(self, *args: Any, group: Title = "Other", **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.group = group


class Command(click.Command):
    """A command with groups of options, in the order of TITLES."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows: dict[str, list[tuple[str, str]]] = {title: [] for title in TITLES}
        for param in self.get_params(ctx):
            row = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if row is not None:
                rows[getattr(param, "group", "Other")].append(row)
        for title, group in rows.items():
            if group:
                with formatter.section(title):
                    formatter.write_dl(group)


def option(group: Title, *flags: str, **settings: Any) -> Decorator[Any]:
    """click.option() in a group."""
    return click.option(*flags, cls=Option, group=group, **settings)


def together(*options: Decorator[Any]) -> Decorator[Any]:
    """One decorator for several options, shown by --help in this order."""

    def add(command: Function) -> Function:
        for each in reversed(options):
            command = each(command)
        return command

    return add
