"""The programs of examples/ run as they are, with the embedded model, and with another one where they are given it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SAYS = {
    "branches": [
        "37 of   39 tokens were known: 'The results are a = 85, b = 72, c = 36 and d = 17.'", "2 messages here, 2 there"
    ],
    "by_hand": ["B:ba85-13=027;72^40=72;b=72", ":?a85b72c36d27", "cells hold what is common"],
    "columns": ["Alice", "Bob", "Carol", "The answer is a85b72c36d27e70"],
    "many_questions": [f"a{n}5b" for n in range(2, 10)] + ["8 questions in"],
    "own_layout": [
        f"{name:12} " for name in ("Chain", "combined", "interleaved", "contiguous")
    ] + [": 'a85b72c36d27e70f89'"],
}  # fmt: skip
IN_WORDS = {
    "branches": ["--", "Why?", "How?"],
    "by_hand": ["--passes=8", "Two poems.", "One:", "Two:"],
    "columns": ["--workers=2", "Why?"],
    "many_questions": ["--seconds=0.5", "Why?", "How?"],
    "own_layout": ["--workers=2", "Why?"],
}


def run(name: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", str(EXAMPLES / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120, check=False)


def test_each_program_has_its_line_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SAYS) == set(IN_WORDS)


@pytest.mark.parametrize("name", SAYS)
def test_an_example_solves_its_worksheets(name: str, tmp_path: Path) -> None:
    done = run(name, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [text for text in SAYS[name] if text not in done.stdout] == []


@pytest.mark.parametrize("name", IN_WORDS)
def test_an_example_takes_another_model_and_a_prompt_in_words(
    name: str, tmp_path: Path, tiny_path: Callable[..., Path]
) -> None:
    done = run(name, "--model", str(tiny_path("qwen3")), *IN_WORDS[name], folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert {char for char in done.stdout if not char.isprintable()} <= {"\n"}  # of a model that writes anything
