"""Who says how a prompt is cut: a table of what was measured, or else the costs of ranks and links, or else nobody."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cached_property

from ..errors import ComputeError, OutOfMemory, RunaheadError
from .balance import planned
from .costs import Costs, Link
from .kept import Kept
from .partition import Partition, even, interpolated, of_shares

WORTH_PROBING = 1024
"""Tokens of a rank: measuring costs takes as long as some 200 of them, once for all prompts."""


class Cutter:
    """For the prompts of one cache. probe: finds the costs out now; None: there is no room for it."""

    def __init__(self, n_ranks: int, kept: Kept, probe: Callable[[], Costs | None]) -> None:
        self._n_ranks, self._kept, self._probe = n_ranks, kept, probe
        self._planned: dict[tuple[int, int], Partition] = {}
        self._link: Link | None = None

    def limit(self, link: Link | None) -> None:
        """Lets all links be like this one from now on, of which no table says anything; None: as they are."""
        self._link = link
        self._planned.clear()

    def cut(self, n_tokens: int, n_known: int) -> Partition:
        """n_known: tokens before these, which the last rank has. Raises what ranks raise that are lost."""
        measured = interpolated(self._best, n_tokens) if self._best and self._link is None else None
        if measured is not None and not n_known:
            return measured
        is_long = n_tokens >= WORTH_PROBING * self._n_ranks
        costs = self._costs or (self.probed() if is_long else None)
        if costs is None:
            return measured or even(n_tokens, self._n_ranks)
        plan = self._plan(costs, n_tokens, n_known)
        if measured is None:
            return plan
        # A table is of prompts of which nothing is known: there it says what the costs leave out, and here that too.
        rows = zip(plan, measured, self._plan(costs, n_tokens, 0), strict=True)
        return of_shares([of_plan * of_table / of_both for of_plan, of_table, of_both in rows], n_tokens)

    def _plan(self, costs: Costs, n_tokens: int, n_known: int) -> Partition:
        if (n_tokens, n_known) not in self._planned:
            if self._link is not None:
                costs = costs._replace(links=[self._link] * self._n_ranks)
            self._planned[n_tokens, n_known] = planned(costs, n_tokens, n_known)
        return self._planned[n_tokens, n_known]

    def probed(self) -> Costs | None:
        """The costs as they are found out now, and kept for later; None: that could not be done."""
        costs = None
        with contextlib.suppress(ComputeError, OutOfMemory):
            costs = self._probe()
        if costs is not None:
            self._costs = costs
            self._planned.clear()
            with contextlib.suppress(RunaheadError):  # the next run measures again
                self._kept.keep_costs(costs)
        return costs

    @cached_property
    def _best(self) -> dict[int, Partition]:
        return self._kept.table().best()

    @cached_property
    def _costs(self) -> Costs | None:
        return self._kept.costs()
