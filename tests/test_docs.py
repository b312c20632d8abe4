"""The documents' examples: each python block is run, with what a reader has in the folder, and prints what is said."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from documents import PAGES, RANDOM, ROOT, SERVED, TOOLS, USUAL_ADDRESS, Program, command_lines, programs
from server_helper import served
from test_tools import TOOL_TEMPLATE

from hogwild_local import Result, SamplingParams, Worker, errors, events
from hogwild_local.engine.default_model import default_model_path
from hogwild_local.options import EngineOptions, RunOptions
from models import vocabulary
from models.tiny import write_tiny

PROGRAMS = [program for page in PAGES for program in programs(page)]
PROBLEMS = '{"problem": "a=27+58", "answer": "85"}\n{"problem": "a=01+02", "answer": "3"}\n'


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_an_example_runs_and_prints_what_its_page_says(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_path: Callable[..., Path]
) -> None:
    model = tiny_path("qwen3") if program.mark in (RANDOM, TOOLS) else default_model_path()
    if program.mark == TOOLS:
        monkeypatch.setattr(vocabulary, "CHAT_TEMPLATE", TOOL_TEMPLATE)
        model = tmp_path / "tools.gguf"
        write_tiny(model, "qwen3")
    (tmp_path / "model.gguf").symlink_to(model)
    shutil.copy(ROOT / "hogwild_local" / "prompts" / "default.toml", tmp_path / "mine.toml")
    (tmp_path / "problems.jsonl").write_text(PROBLEMS)
    monkeypatch.chdir(tmp_path)
    if program.mark == SERVED:
        with served() as server:
            printed = dataclasses.replace(program, source=program.source.replace(USUAL_ADDRESS, server.address)).run()
    else:
        printed = program.run()
    assert program.output in (None, printed)


def test_the_session_of_the_readme_is_a_real_one(tmp_path: Path) -> None:
    """But for its last line, the timings."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    [(arguments, said)] = re.findall(r"^    \$ hogwild (.*)\n((?:    .*\n|\n(?=    ))+)", page, re.MULTILINE)
    command = [sys.executable, "-P", "-c", "from hogwild_local.cli.main import main; main()", *arguments.split()]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=tmp_path, check=True)
    told = re.sub(r"^    ", "", said, flags=re.MULTILINE).rstrip()
    assert told.rsplit("\n", 1)[0] == (done.stderr + done.stdout).rstrip().rsplit("\n", 1)[0]


def test_no_block_is_left_out() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("models/*.md"), *ROOT.glob("*.md")]
    text = {page: page.read_text(encoding="utf-8") for page in pages}
    fences = {page: re.findall(r"^ *```(\w*)$", said, re.MULTILINE)[::2] for page, said in text.items()}
    assert {kind for kinds in fences.values() for kind in kinds} <= {"python", "text", "sh", "yaml", ""}
    for page in PAGES:
        run = "\n".join(program.source for program in programs(page))
        printed = "\n".join(program.output or "" for program in programs(page))
        for kind, taken in (("python", run), ("text", printed)):
            blocks = re.findall(rf"^```{kind}\n(.*?)^```$", text[page], re.MULTILINE | re.DOTALL)
            assert len(blocks) == fences[page].count(kind)
            assert [block for block in blocks if block not in taken] == []
    assert {page for page, kinds in fences.items() if "python" in kinds} == set(PAGES)


def test_a_wrong_example_is_told(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n```python\nprint(1)\n```\n\n```text\n2\n```\n## Two\n```python\n1 / 0\n```\n```text\n```\n")
    one, two = programs(page)
    assert (one.section, one.output, one.run()) == ("One", "2\n", "1\n")
    with pytest.raises(ZeroDivisionError) as error:
        two.run()
    assert error.traceback[-1].lineno + 1 == 11  # the page's own


def test_the_examples_pass_mypy_strict(tmp_path: Path) -> None:
    for n, program in enumerate(PROGRAMS):
        (tmp_path / f"example_{n}.py").write_text(f"# {program.name}\n{program.source}")
    command = [sys.executable, "-P", "-m", "mypy", "--strict", "--cache-dir", str(tmp_path.parent / "cache"), "."]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout


def test_each_option_of_a_command_line_is_one_of_its_command() -> None:
    lines = command_lines()
    assert len(lines) > 20
    known = {"--help", "--version"}
    unknown = []
    for command, options in lines:
        params = command.params
        known_here = known.union(*((*param.opts, *param.secondary_opts) for param in params))
        unknown += [(command.name, option) for option in options if option not in known_here]
    assert unknown == []


def anchors(page: Path) -> set[str]:
    """Where a link into a page may lead, as GitHub names the headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_from_page_to_page_lead_somewhere() -> None:
    n, dead = 0, []
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("models/*.md"), *ROOT.glob("tests/*/*.md")]:
        for link in re.findall(r"\]\(((?!https?://)[^)\s]+)\)", page.read_text(encoding="utf-8")):
            file, _, anchor = link.partition("#")
            target = (page.parent / file) if file else page
            n += 1
            if not target.exists() or (anchor and anchor not in anchors(target)):
                dead.append((page.name, link))
    assert n > 20
    assert dead == []


def public_names() -> set[str]:
    """Events, errors, what can be chosen, and what comes of a run."""
    of_modules = {
        name
        for module, base in ((events, events.Event), (errors, errors.HogwildError))
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, base) and kind is not base
    }
    classes = (EngineOptions, RunOptions, SamplingParams, Worker, Result)
    return of_modules | {field.name for kind in classes for field in dataclasses.fields(kind)}


def test_the_page_about_python_names_each_event_error_and_option() -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    code = " ".join(re.findall(r"`([^`\n]+)`", text))
    assert sorted(name for name in public_names() if not re.search(rf"\b{name}\b", code)) == []
