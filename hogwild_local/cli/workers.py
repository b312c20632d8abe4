"""Workers as they are written on the command line, and typed: NAME, or NAME: ROLE."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from ..options import RunOptions, Worker
from .grouped import option, together
from .options import field_option


def parse_worker(text: str) -> Worker:
    """Raises InvalidArgument."""
    name, _, role = text.partition(":")
    return Worker(name.strip(), role.strip() or None)


def shown_worker(worker: Worker) -> str:
    """As it is written."""
    return worker.name if worker.role is None else f"{worker.name}: {worker.role}"


class OneWorker(click.ParamType[Worker]):
    """NAME or NAME:ROLE."""

    name = "name[:role]"
    envvar_list_splitter = ";"  # roles have spaces

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Worker:
        return value if isinstance(value, Worker) else parse_worker(value)


who_options = together(
    field_option("Workers", RunOptions, "workers"),
    option(
        "Workers", "--worker", type=OneWorker(), multiple=True, metavar="NAME[:ROLE]",
        help="A worker by its name, and what it alone is told, its role; once for each, instead of --workers.",
    ),
)  # fmt: skip
"""What workers() takes."""


def workers(ctx: click.Context, options: dict[str, Any]) -> int | list[Worker]:
    """Names count more than a number that comes from the environment; both on the command line make no sense."""
    if not options["worker"]:
        return int(options["workers"])
    if ctx.get_parameter_source("workers") is ParameterSource.COMMANDLINE:
        raise click.UsageError("give either --workers or --worker, not both")
    return list(options["worker"])
