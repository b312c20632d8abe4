"""hogwild runahead: what there is to do about prompts of several ranks, beside using them (hogwild run --runahead)."""

from __future__ import annotations

import click

from .runahead_bench import bench
from .runahead_tune import tune


@click.group()
def runahead() -> None:
    """Prompts that several processes (ranks) prefill together: measure them, and how they are best cut."""


runahead.add_command(bench)
runahead.add_command(tune)
