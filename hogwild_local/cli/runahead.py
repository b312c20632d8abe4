"""hogwild runahead: what there is to do about prompts of several ranks, beside using them (hogwild run --runahead)."""

from __future__ import annotations

import click

from .runahead_bench import bench


@click.group()
def runahead() -> None:
    """Prompts that several processes (ranks) prefill together: measure them."""


runahead.add_command(bench)
