"""What is compared: arms, which are runs made alike, and settings, which are the lines of the table.

arm               what its runs are                                 settings made of it
single            one worker                                        single: its first replica
LAYOUT-N          N workers in that layout                          LAYOUT-N
delayed-N         N workers who see of each other finished steps    delayed-N
                  only, in the words of the combined layout
independent       one worker; the arm single itself, unless the     independent-N-first, independent-N-majority:
                  temperature is another one                        its first N replicas
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..workers.layouts import Block, Combined, Layout

if TYPE_CHECKING:
    from .plan import Plan

BASELINES = ("independent", "delayed")

Combine = Literal["only", "first", "majority"]
"""How the answers of replicas become one: there is one replica; the first answer counts; the most frequent one."""


class Delayed(Combined):
    """The combined layout without what the others are writing: a step is seen when it is finished. Header and
    separator stand as they do there, so that the instant view is all that is missing."""

    def view(self, worker: int) -> list[Block]:
        return [*self.history, *self.header, *self.separator, self.own[worker]]


LAYOUTS: Mapping[str, type[Layout]] = {"delayed": Delayed}
"""Layouts of arms that Hogwild does not know by name."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Runs that differ in problem, replica and budget only. replicas: how many the settings need."""

    name: str
    layout: str
    workers: int
    temperature: float
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the table and of the plot: the first n_replicas replicas of an arm, and how they become one."""

    name: str
    arm: str
    layout: str
    workers: int
    n_replicas: int = 1
    combine: Combine = "only"


def arms(plan: Plan) -> list[Arm]:
    """The runs that a plan needs, in the order in which they are made."""
    own, other = plan.sampling.temperature, plan.independent_temperature
    several = [n for n in plan.workers if n > 1]
    n_single, n_independent = int(1 in plan.workers), max(several) if "independent" in plan.baselines else 0
    result = []
    if other == own:
        n_single, n_independent = max(n_single, n_independent), 0
    if n_single:
        result.append(Arm("single", "contiguous", 1, own, n_single))
    if n_independent:
        result.append(Arm("independent", "contiguous", 1, other, n_independent))
    return result + [Arm(f"{layout}-{n}", layout, n, own) for layout in _layouts(plan) for n in several]


def settings(plan: Plan) -> list[Setting]:
    """What is reported of a plan, in the order of the table."""
    several = [n for n in plan.workers if n > 1]
    result = [Setting("single", "single", "contiguous", 1)] if 1 in plan.workers else []
    result += [Setting(f"{layout}-{n}", f"{layout}-{n}", layout, n) for layout in _layouts(plan) for n in several]
    if "independent" in plan.baselines:
        arm = "single" if plan.independent_temperature == plan.sampling.temperature else "independent"
        ways: tuple[Combine, ...] = ("first", "majority")
        result += [Setting(f"independent-{n}-{way}", arm, "contiguous", n, n, way) for way in ways for n in several]
    return result


def replica_seed(seed: int, problem: str, replica: int) -> int:
    """The seed of a run: the same for all arms and budgets, so that a resumed run is the same one."""
    key = f"{seed}/{replica}/{problem}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "little")


def _layouts(plan: Plan) -> tuple[str, ...]:
    return (*plan.layouts, *(name for name in plan.baselines if name in LAYOUTS))
