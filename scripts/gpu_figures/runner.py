"""Runs the steps, one after the other, within a budget of time: a step that fails or takes too long stops no other."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from .plan import Step
from .record import Record, Result, Status

RESERVE_S = 4.0  # of the budget, to end in order
ROOM = 1.4  # of what a step writes: others write too
TICK_S = 0.2
PUBLISH_S = 5.0  # how often a step's figures are written while it runs
PROGRESS_S = 20.0  # how often it is told how far a step is
TAIL = 4096  # bytes of a log, to find its last line
KILL_S = 3.0  # between asking a command to end, and ending it


@dataclass
class Running:
    """A step whose commands run one after the other, each in a session of its own, so that all of it can be ended."""

    step: Step
    commands: list[list[str]]
    cwd: Path
    environment: Mapping[str, str]
    log: Path
    begun: float
    process: subprocess.Popen[bytes] | None = None
    fault: int | None = None  # of a command that could not be begun

    def poll(self) -> int | None:
        """The exit code of the first command that failed, 0 when all are done, None while one runs."""
        code = self.process.poll() if self.process is not None else 0
        if self.fault is not None or code != 0 or not self.commands:
            return self.fault or code
        with self.log.open("ab") as log:
            try:
                self.process = subprocess.Popen(
                    self.commands.pop(0), cwd=self.cwd, env={**os.environ, **self.environment},
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                log.write(f"{error}\n".encode())
                self.fault = 127  # as a shell has it
        return self.fault

    def end(self) -> None:
        """Ends the command and all that it started."""
        if self.process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(KILL_S)
        self.process.wait()


class Runner:
    """folder: for logs and the files of steps; shown: how a command is written for people. The clock is in seconds."""

    def __init__(
        self, record: Record, minutes: float, folder: Path, cwd: Path, environment: Mapping[str, str],
        shown: Callable[[Sequence[str]], str], say: Callable[[str], object],
    ) -> None:  # fmt: skip
        self.record, self.folder, self.cwd, self.environment = record, folder, cwd, environment
        self.shown, self.say = shown, say
        self._end = time.monotonic() + 60 * minutes - RESERVE_S
        self.interrupted = False
        self._background: dict[str, Running] = {}
        for name in ("logs", "results"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def left(self) -> float:
        return 0.0 if self.interrupted else self._end - time.monotonic()

    def interrupt(self, *signal: object) -> None:
        """Ends as if there were no time left: at any moment, also from a signal's handler."""
        self.interrupted = True

    def _no_time(self) -> str:
        return "interrupted" if self.interrupted else f"{max(0.0, self.left()):.0f} s were left"

    def run(self, steps: Sequence[Step]) -> None:
        """All of them. What was done in an earlier run is not done again."""
        try:
            for step in steps:
                if not self.record.is_done(step.name):
                    self._take(step)
            for name in list(self._background):
                self._wait_for(name)
        finally:
            for running in self._background.values():
                running.end()

    def _take(self, step: Step) -> None:
        if any(map(self.record.has_figures, step.instead_of)):
            self.record.drop(step.name)
            return
        wanting = [name for name in step.needs if not self._wait_for(name)]
        if wanting:
            self._leave_out(step, f"{', '.join(wanting)}: not done")
        elif self.left() < max(step.least, TICK_S):
            self._leave_out(step, self._no_time())
        elif (free := shutil.disk_usage(self.folder).free) < ROOM * step.n_bytes:
            self._leave_out(step, f"the disk has {free / 1e9:.0f} GB left: name another with --work")
        elif step.in_background:
            self._background[step.name] = self._start(step)
        else:
            self._follow(self._start(step))

    def _leave_out(self, step: Step, why: str) -> None:
        """What an earlier run measured of it, before it was cut off, is kept."""
        if not self.record.has_figures(step.name):
            self._finish(step, Result("left out", why))

    def _start(self, step: Step) -> Running:
        """Of what an earlier run left, nothing is taken for this one's."""
        for path in self.folder.glob(f"results/{step.name}*"):
            path.unlink()
        log = self._log(step)
        log.write_bytes(b"")
        commands = [[word.replace("{out}", str(self._file(step))) for word in line] for line in step.commands]
        self.say(f"{step.name} ... ({self.left():.0f} s are left)")
        environment = {**self.environment, **step.environment}
        running = Running(step, commands, self.cwd, environment, log, time.monotonic())
        running.poll()
        return running

    def _wait_for(self, name: str) -> bool:
        """Whether a step was done, after waiting for it if it runs in the background."""
        if name in self._background:
            self._follow(self._background[name])
            self._background.pop(name, None)
        return self.record.is_done(name)

    def _follow(self, running: Running) -> None:
        """Until it ends, or its time or the budget does."""
        step = running.step
        published = told = time.monotonic()
        while (code := running.poll()) is None:
            self._look_after_the_others(running)
            now = time.monotonic()
            if now - running.begun > step.most or self.left() <= 0:
                running.end()
                why = f"its limit of {step.most:.0f} s" if self.left() > 0 else self._no_time()
                self._finish_running(running, "cut off", why)
                return
            if now - published > PUBLISH_S:
                published = now
                self._finish_running(running, "running", "")
            if now - told > PROGRESS_S:
                told = now
                self.say(f"  {now - running.begun:.0f} s: {self._last_line(step)}")
            time.sleep(TICK_S)
        self._finish_running(running, "failed" if code else "done", self._last_words(step, code) if code else "")

    def _look_after_the_others(self, followed: Running) -> None:
        """Those in the background that have ended are written down at once."""
        for name, running in list(self._background.items()):
            code = None if running is followed else running.poll()
            if code is not None:
                del self._background[name]
                why = self._last_words(running.step, code) if code else ""
                self._finish_running(running, "failed" if code else "done", why)

    def _finish_running(self, running: Running, status: Status, why: str) -> None:
        step = running.step
        printed = self._log(step).read_text(encoding="utf-8", errors="replace")
        figures = step.read(printed, self._file(step))
        self._finish(step, Result(status, why, round(time.monotonic() - running.begun, 1), figures=figures))

    def _finish(self, step: Step, result: Result) -> None:
        settings = [f"{name}={value}" for name, value in step.environment.items()]
        command = " && ".join(" ".join([*settings, self.shown(line)]) for line in step.commands)
        self.record.put(step.name, replace(result, command=command))
        if result.status != "running":
            self.say(f"{step.name}: {result.status}{f' ({result.why})' if result.why else ''}, {result.seconds:.0f} s")

    def _last_line(self, step: Step) -> str:
        """A compiler's command is long: it begins with how many are done, and ends with the file."""
        with self._log(step).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL))
            lines = log.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return last if len(last) <= 100 else f"{last[:20]} ... {last[-75:]}"

    def _last_words(self, step: Step, code: int) -> str:
        """The first error of a compiler or of CMake (which says in the next line what it is), or else the last line."""
        text = self._log(step).read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [
            f"{line} {after}" if "CMake Error" in line else line
            for line, after in pairwise([*lines, ""])
            if ": error: " in line or "CMake Error" in line
        ]
        end = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"{end}: {(errors[:1] or lines[-1:] or [''])[0][-300:]}"

    def _log(self, step: Step) -> Path:
        return self.folder / "logs" / f"{step.name}.txt"

    def _file(self, step: Step) -> Path:
        return self.folder / "results" / step.name
