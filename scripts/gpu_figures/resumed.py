"""Runs tests, and goes on with the rest where one ends the process: on a device a fault of its driver, or an assertion
of ggml, would else take all with it that follow.

    python resumed.py JOURNAL [pytest's arguments]      JOURNAL: lines of an outcome and a test's name
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

BEGUN = "begun"  # a later line of the same test says how it ended
CHILD = "HOGWILD_RESUMED"
NO_TESTS = 5  # pytest's exit code


class Journal:
    """A plugin of pytest, which leaves out the tests that the file has already."""

    def __init__(self, file: Path) -> None:
        self.file, self.outcome = file, ""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        done = outcomes(self.file)
        items[:] = [item for item in items if item.nodeid not in done]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.outcome = "passed"
        write(self.file, BEGUN, nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.outcome != "passed":  # of the setup, the test or what follows it
            self.outcome = report.outcome

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        write(self.file, self.outcome, nodeid)


def write(file: Path, outcome: str, name: str) -> None:
    with file.open("a", encoding="utf-8") as journal:
        journal.write(f"{outcome} {name}\n")


def outcomes(file: Path) -> dict[str, str]:
    """Of each test: passed, failed, skipped, crashed; or begun, of the one that runs."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return {name: outcome for outcome, _, name in (line.partition(" ") for line in text.splitlines())}


def main(file: Path, arguments: list[str]) -> int:
    """pytest's exit code; 1 where a test ended the process."""
    if CHILD in os.environ:
        import pytest

        return int(pytest.main(["-v", *arguments], plugins=[Journal(file)]))
    command = [sys.executable, "-P", __file__, str(file), *arguments]
    while True:
        n_before = len(outcomes(file))
        code = subprocess.run(command, env={**os.environ, CHILD: "1"}, check=False).returncode
        crashed = [name for name, outcome in outcomes(file).items() if outcome == BEGUN]
        for name in crashed:
            write(file, "crashed", name)
        found = outcomes(file)
        if (code >= 0 and not crashed) or len(found) == n_before:
            is_wrong = not {"failed", "crashed"}.isdisjoint(found.values())
            return int(is_wrong) or (0 if code == NO_TESTS and found else code)
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        print(f"\n{[*found][-1]}: the process ended here, {how}", flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
