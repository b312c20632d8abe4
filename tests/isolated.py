"""Runs Python code in a process of its own: an abort or a crash there is a failed test here, not the end of pytest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = str(Path(__file__).parent.parent)


def run_isolated(code: str, *args: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """The finished process; sys.argv[1:] are args. models/ can be imported, and hogwild_local is the installed one:
    -P keeps the checkout, where nothing is compiled, from standing before it."""
    prelude = f"import sys; sys.path.append({ROOT!r})\n"
    return subprocess.run(
        [sys.executable, "-P", "-c", prelude + code, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
