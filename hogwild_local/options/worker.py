"""What can be chosen of one worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..checks import text, texts
from ..errors import InvalidArgument
from .sampling import SamplingParams


@dataclass(frozen=True)
class Worker:
    """One worker of a run, and what only it has.

        hw.stream("PROMPT", workers=["Alice", Worker("Bob", role="Doubt every figure.")])

    name: as all read it. role: a text that this worker reads and the others do not. sampling: in the place of the
    run's. stop: texts that end it, beside those of the run. grammar: GBNF that holds all it writes, in the place of the
    grammar of the run's sampling. Raises InvalidArgument, naming the field; also for a grammar beside one of its own
    sampling.
    """

    name: str
    role: str | None = None
    sampling: SamplingParams | None = None
    stop: str | Sequence[str] = ()
    grammar: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InvalidArgument(f"workers: names must be non-empty strings, not {self.name!r}")
        text(self.name, f"workers: the name {self.name!r}")
        object.__setattr__(self, "stop", texts(self.stop, f"stop of worker {self.name!r}"))
        if self.role is not None and not text(self.role, f"role of worker {self.name!r}").strip():
            raise InvalidArgument(f"role of worker {self.name!r} must not be empty: None is no role")
        if self.sampling is not None and not isinstance(self.sampling, SamplingParams):
            raise InvalidArgument(f"sampling of worker {self.name!r} must be SamplingParams, not {self.sampling!r}")
        if self.grammar is not None:
            text(self.grammar, f"grammar of worker {self.name!r}")
            if self.sampling is not None and self.sampling.grammar is not None:
                raise InvalidArgument(f"grammar of worker {self.name!r}: its sampling has one too; give it once")

    def sampling_in(self, run: SamplingParams) -> SamplingParams:
        """How it samples in a run whose workers sample so unless they say otherwise."""
        params = self.sampling or run
        return params if self.grammar is None else replace(params, grammar=self.grammar)


def as_worker(worker: object) -> Worker:
    """From a name, or the thing itself. Raises InvalidArgument."""
    return worker if isinstance(worker, Worker) else Worker(worker)  # type: ignore[arg-type]  # which it checks
