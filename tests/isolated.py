"""Runs Python code in a process of its own: an abort or a crash there is a failed test here, not the end of pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = str(Path(__file__).parent.parent)


def run_isolated(
    code: str,
    *args: object,
    timeout: float = 120,
    environment: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """The finished process; sys.argv[1:] are args, environment is added to ours. models/ can be imported, and
    hogwild_local is the installed one: -P keeps the checkout, where nothing is compiled, from standing before it."""
    prelude = f"import sys; sys.path.append({ROOT!r})\n"
    return subprocess.run(
        [sys.executable, "-P", "-c", prelude + code, *map(str, args)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(environment or {})},
        check=False,
    )
