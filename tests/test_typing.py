"""What a type checker tells a user of the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

GOOD = """
from hogwild_local import Hogwild, Result, Run, SamplingParams, SharedCache, Worker
from hogwild_local.events import Answer, Token
from hogwild_local.workers.layouts import Combined

class Mine(Combined):
    pass

def main(path: str) -> str | None:
    with Hogwild(path, n_ctx=4096, type_k="q8_0", attention="auto", lora=[("a.gguf", 0.5)], prompts=None) as hw:
        run: Run = hw.stream("P", workers=["Alice", "Bob"], layout="combined", max_passes=9, seed=1)
        for event in run:
            if isinstance(event, Token):
                print(event.text, end="")
            elif isinstance(event, Answer):
                print(event.text)
        hw.stream([{"role": "user", "content": "P"}], workers=2, layout=Mine, stop="x").close()
        doubter = Worker("Bob", role="Doubt.", sampling=SamplingParams(temperature=0), stop=["x"])
        run = hw.stream("P", workers=["Alice", doubter])
        run.say("Hurry.", to="Bob")
        run.add(Worker("Carol"))
        result: Result = hw.generate("P", workers=4, layout="interleaved", finisher=False)
        return result.answer
"""

WRONG = {
    'hw.stream("P", layout="diagonal")': "layout",
    'hw.generate("P", layout="diagonal")': "layout",
    'hw.stream("P", max_passes="9")': "max_passes",
    'hw.generate("P", max_tokens=9)': "max_tokens",
    "hw.stream()": "Too few arguments",
    'Hogwild("m.gguf", type_k="f8")': "type_k",
    'Hogwild("m.gguf", attention="fast")': "attention",
    'Hogwild("m.gguf", split_mode="row")': "split_mode",
    "Hogwild(None)": "None",
    'x: int = hw.generate("P").answer': "int",
}


def check(script: str, folder: Path) -> str:
    """What mypy --strict says of a script that stands in a folder of its own."""
    (folder / "script.py").write_text(script)
    command = [sys.executable, "-P", "-m", "mypy", "--strict", "--cache-dir", str(folder.parent / "cache"), "script.py"]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False).stdout


def test_a_script_that_uses_the_package_as_documented_passes_mypy_strict(tmp_path: Path) -> None:
    assert "Success" in check(GOOD, tmp_path), check(GOOD, tmp_path)


def test_each_wrong_call_is_found(tmp_path: Path) -> None:
    lines = [f"    {call}" for call in WRONG]
    said = check("\n".join(["from hogwild_local import Hogwild", "def f(hw: Hogwild) -> None:", *lines, ""]), tmp_path)
    for number, (call, word) in enumerate(WRONG.items(), start=3):
        errors = [line for line in said.splitlines() if line.startswith(f"script.py:{number}: error")]
        assert errors, f"{call} passes"
        assert word in errors[0]
