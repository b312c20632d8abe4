"""What became of each step, in one file that is whole at any time, and that a later run goes on with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from .pack import write_json

Status: TypeAlias = Literal["done", "failed", "cut off", "left out", "running"]


@dataclass(frozen=True)
class Result:
    """status "running" is what a run leaves that was killed itself. why: of a step that was not done. command: as a
    person would write it."""

    status: Status
    why: str = ""
    seconds: float = 0.0
    command: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


class Record:
    """file: of the state; key: what must be the same for an earlier run's steps to count; on_change: called with all of
    it after each step."""

    def __init__(self, file: Path, key: Any, on_change: Callable[[Record], object] = lambda record: None) -> None:
        self._file, self.key, self._on_change = file, key, on_change
        state = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if state.get("key") != key:
            state = {}
        self.about: dict[str, Any] = state.get("about", {})
        self.steps = {name: Result(**result) for name, result in state.get("steps", {}).items()}

    def describe(self, about: Mapping[str, Any]) -> None:
        self.about = {**self.about, **about}
        self._write()

    def put(self, name: str, result: Result) -> None:
        self.steps[name] = result
        self._write()

    def drop(self, name: str) -> None:
        """What an earlier run said of it no longer counts."""
        if self.steps.pop(name, None) is not None:
            self._write()

    def is_done(self, name: str) -> bool:
        return name in self.steps and self.steps[name].status == "done"

    def has_figures(self, name: str) -> bool:
        return name in self.steps and bool(self.steps[name].figures)

    def to_dict(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "about": self.about,
            "steps": {name: asdict(result) for name, result in self.steps.items()},
        }

    def _write(self) -> None:
        self.about["written"] = time.strftime("%Y-%m-%d %H:%M:%S")
        write_json(self._file, self.to_dict())
        self._on_change(self)
