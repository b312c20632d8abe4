"""The python examples of a document: those of a section, in their order, are one program."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

import click

from hogwild_local.cli.main import command

ROOT = Path(__file__).parent.parent
PAGES = [
    page
    for page in (ROOT / "README.md", ROOT / "models" / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if "```python" in page.read_text(encoding="utf-8")
]
RANDOM, TOOLS = "<!-- random model -->", "<!-- random model with tools -->"
"""Stand in a section that asks what the embedded model can't read: model.gguf is a tiny random model there, with a chat
template that shows tools, or none."""
SERVED = "<!-- hogwild serve -->"
"""Stands in a section whose examples ask a server, by the usual address."""
USUAL_ADDRESS = "http://127.0.0.1:8080"


@dataclass(frozen=True)
class Program:
    """The examples of one section. source has them in the lines where the page has them, so that errors name those;
    output is what the page says that they print, None if it says nothing."""

    page: Path
    section: str
    source: str
    output: str | None
    mark: str | None

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.section}" if self.page.is_relative_to(ROOT) else self.section

    def run(self) -> str:
        """What it prints."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(self.source, str(self.page), "exec"), {"__name__": "__main__"})
        return printed.getvalue()


def programs(page: Path) -> list[Program]:
    """The programs of a page: a block of python belongs to the section that it stands in, and a block of text right
    behind one is what is printed."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found, start = [], 0
    for end in [*(n for n, line in _outside(lines) if line.startswith("#")), len(lines)]:
        program = _of_section(page, lines, start, end)
        if program is not None:
            found.append(program)
        start = end
    return found


def _outside(lines: list[str]) -> list[tuple[int, str]]:
    """The numbered lines that are in no block."""
    inside, found = False, []
    for n, line in enumerate(lines):
        if line.startswith("```"):
            inside = not inside
        elif not inside:
            found.append((n, line))
    return found


def _of_section(page: Path, lines: list[str], start: int, end: int) -> Program | None:
    code, printed = [""] * start, []
    kind, before = "", ""
    for line in lines[start:end]:
        is_fence = line.startswith("```")
        if is_fence and kind:
            kind, before = "", kind
        elif is_fence:
            kind = line[3:] or "none"
            kind = "output" if kind == "text" and before == "python" else kind
        elif line.strip() and not kind:
            before = ""
        code.append(line if kind == "python" and not is_fence else "")
        if kind == "output" and not is_fence:
            printed.append(line)
    if not any(code):
        return None
    section = re.sub(r"^#+ ", "", lines[start])
    output = "\n".join(printed) + "\n" if printed else None
    mark = next((line for line in lines[start:end] if line in (RANDOM, TOOLS, SERVED)), None)
    return Program(page, section, "\n".join(code) + "\n", output, mark)


def command_of(names: str) -> click.Command:
    """The command "run", or "runahead bench". Raises KeyError if there is none."""
    first, *others = names.split()
    found = command(first)
    for name in others:
        assert isinstance(found, click.Group)
        found = found.commands[name]
    return found


def command_lines() -> list[tuple[click.Command, list[str]]]:
    """The hogwild commands that documents show, with the options that they are given there. Raises KeyError for a
    command that there is not."""
    found = []
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("models/*.md")]:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for names, rest in re.findall(
            r"(?:^    |`)(?:mpiexec [^`\n]*)?hogwild ((?:runahead )?[a-z][a-z-]*)([^`#\n]*)", text, re.MULTILINE
        ):
            found.append((command_of(names), re.findall(r"(?<!\S)--?[a-z][\w-]*", rest)))
    return found
