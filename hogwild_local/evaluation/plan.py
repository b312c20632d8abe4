"""Plan: what an evaluation does; and plan.json, by which a directory knows what evaluation it holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..checks import INT32_MAX, number, whole
from ..disk import write_whole
from ..errors import InvalidArgument
from ..options import AnswerAt, RunOptions, SamplingParams
from ..prompts.style import PromptStyle
from ..prompts.variables import checked_date
from ..workers.layouts import LAYOUTS
from .answers import CHECKERS
from .settings import BASELINES

CHUNK = 2**20
MOST_CHUNKS = 64


@dataclass(frozen=True)
class Plan:
    """What to run on each problem. Raises InvalidArgument.

    workers, layouts, baselines: which settings, see settings.py; 1 among the workers is the single worker. budgets:
    forward passes, each a point of the plot. check: "exact", "number" or "math". sampling: without a seed, since each
    run derives its own from seed. independent_temp: temperature of the independent workers; None: that of sampling.
    finisher_tokens: 0 is no finisher. answer_at, eos_ends_run: as in a run (docs/fidelity.md).
    transcripts: keep what was written.
    date: the day that a chat template may ask for, as YYYY-MM-DD; without it, today.
    """

    workers: tuple[int, ...] = (1, 2)
    layouts: tuple[str, ...] = ("combined",)
    budgets: tuple[int, ...] = (64, 128, 256)
    baselines: tuple[str, ...] = ()
    check: str = "exact"
    seed: int = 0
    sampling: SamplingParams = field(default_factory=SamplingParams)
    independent_temp: float | None = None
    finisher_tokens: int = RunOptions.finisher_tokens
    redundancy_every: int = RunOptions.redundancy_every
    thinking: bool = RunOptions.thinking
    answer_at: AnswerAt = RunOptions.answer_at
    eos_ends_run: bool = RunOptions.eos_ends_run
    transcripts: bool = False
    date: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "date", checked_date(self.date).isoformat())
        for name, most in (("workers", 64), ("budgets", INT32_MAX)):
            values = sorted({whole(value, name, 1, most) for value in getattr(self, name)})
            object.__setattr__(self, name, tuple(values))
        for name, known in (("layouts", tuple(LAYOUTS)), ("baselines", BASELINES), ("check", tuple(CHECKERS))):
            given = getattr(self, name)
            for value in (given,) if name == "check" else given:
                if value not in known:
                    raise InvalidArgument(f"{name} must be of {', '.join(known)}, not {value!r}")
        for name in ("layouts", "baselines"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))
        for name in ("workers", "budgets"):
            if not getattr(self, name):
                raise InvalidArgument(f"{name} must not be empty")
        whole(self.seed, "seed", -(2**63), 2**63 - 1)
        whole(self.finisher_tokens, "finisher_tokens", 0)
        whole(self.redundancy_every, "redundancy_every", 0)
        self._check_combinations()

    def _check_combinations(self) -> None:
        if max(self.workers) > 1 and not (self.layouts or self.baselines):
            raise InvalidArgument("layouts: there must be one, or a baseline, for more than one worker")
        if max(self.workers) == 1 and self.baselines:
            raise InvalidArgument("baselines: they need numbers of workers above 1")
        if self.sampling.seed is not None:
            raise InvalidArgument("sampling: its seed must be None; give the plan one")
        if self.independent_temp is not None:
            number(self.independent_temp, "independent_temp")
        if "independent" in self.baselines and self.independent_temperature <= 0:
            raise InvalidArgument(
                "independent workers would all write the same at temperature 0: give independent_temp"
                " (--independent-temp), above 0"
            )

    @property
    def independent_temperature(self) -> float:
        """Temperature of the independent workers."""
        return self.sampling.temperature if self.independent_temp is None else self.independent_temp

    def identity(self) -> dict[str, Any]:
        """What the results depend on: two evaluations that share their records must agree in it. Workers, layouts,
        budgets and baselines are not in it: with more of them, an evaluation is extended."""
        return {
            "check": self.check,
            "seed": self.seed,
            **_sampling_identity(self.sampling),
            "independent_temp": self.independent_temperature,
            "finisher_tokens": self.finisher_tokens,
            "redundancy_every": self.redundancy_every,
            "answer_at": self.answer_at,
            "eos_ends_run": self.eos_ends_run,
            "thinking": self.thinking,
            "date": self.date,
        }

    def extent(self) -> dict[str, Any]:
        """What may differ from one call to the next."""
        return {name: getattr(self, name) for name in ("workers", "layouts", "budgets", "baselines", "transcripts")}


def _sampling_identity(sampling: SamplingParams) -> dict[str, Any]:
    """Directories of earlier versions, which had one order, do not name it."""
    known = asdict(sampling)
    del known["seed"]
    if sampling.sampler_order == SamplingParams.sampler_order:
        del known["sampler_order"]
    return known


def file_identity(path: str | Path) -> str:
    """Name, size and digest of a file: of a small one all bytes, of a large one samples, spread evenly."""
    path = Path(path)
    try:
        size = path.stat().st_size
        digest = hashlib.sha256()
        with path.open("rb") as file:
            step = max(CHUNK, (size - CHUNK) // (MOST_CHUNKS - 1))
            for at in range(0, size, step):
                file.seek(at)
                digest.update(file.read(CHUNK))
    except OSError:
        return path.name  # loading it says what is wrong
    return f"{path.name}, {size} bytes, sha256 {digest.hexdigest()[:16]}"


def style_identity(style: PromptStyle) -> str:
    """Digest of all texts of a style."""
    return hashlib.sha256(json.dumps(asdict(style), sort_keys=True).encode()).hexdigest()[:16]


def check_plan(directory: Path, identity: Mapping[str, Any]) -> None:
    """Raises InvalidArgument, naming what differs, if the directory holds records of another evaluation."""
    before = _recorded(directory)
    if before is None:
        return
    now = _plain(identity)
    differing = [key for key in now | before if now.get(key) != before.get(key)]
    if differing:
        changes = "; ".join(f"{key} was {_shown(before, key)} and is {_shown(now, key)}" for key in differing)
        raise InvalidArgument(f"{directory} holds another evaluation: {changes}. Give another directory")


def recorded_date(directory: Path) -> str | None:
    """The date of the prompts of the evaluation in a directory; None if there is none. Raises InvalidArgument."""
    date = (_recorded(directory) or {}).get("date")
    return date if isinstance(date, str) else None


def _recorded(directory: Path) -> dict[str, Any] | None:
    """The identity of the evaluation that a directory holds."""
    file, records = directory / "plan.json", directory / "records.jsonl"
    if not records.exists() or not records.stat().st_size:
        return None
    if not file.exists():
        raise InvalidArgument(f"{directory} has records, but no plan.json that says what they are of")
    try:
        identity = json.loads(file.read_text(encoding="utf-8"))["identity"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InvalidArgument(f"{file} cannot be read: {error!r}") from error
    if not isinstance(identity, dict):
        raise InvalidArgument(f"{file} cannot be read: its identity is no object")
    return identity


def save_plan(directory: Path, identity: Mapping[str, Any], extent: Mapping[str, Any]) -> None:
    """Writes plan.json, whole or not at all. Raises OSError."""
    text = json.dumps({"identity": _plain(identity), "extent": _plain(extent)}, indent=1) + "\n"
    write_whole(directory / "plan.json", text)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from JSON."""
    return dict(json.loads(json.dumps(values)))


def _shown(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "absent"
