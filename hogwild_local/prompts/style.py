"""The words around the workers' own: loaded from TOML, rendered for the workers, layout and model of one run.

default.toml, beside this file, is the default and, by its comments, the manual. docs/prompts.md shows how
to replace it.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, fields
from datetime import date as Date
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from ..errors import InvalidArgument
from .chat_template import ChatTemplate
from .messages import Message
from .prompt import Prompt, as_text
from .sandbox import Sandbox, budget
from .tables import (
    AnswerForm,
    Finisher,
    LayoutTexts,
    Redundancy,
    Reply,
    Role,
    Rules,
    Said,
    Step,
    Stop,
    Workers,
    check_types,
    from_tables,
)

MOST_TEXT = 2**20


@dataclass(frozen=True, slots=True)
class PromptStyle:
    """All texts of a run; one field per table of the TOML file. Change single ones with
    dataclasses.replace().

    Raises InvalidArgument, which names the key, for texts that can't be rendered and patterns that don't
    compile.
    """

    rules: Rules
    step: Step
    redundancy: Redundancy
    finisher: Finisher
    answer: AnswerForm
    stop: Stop
    layout: Mapping[str, LayoutTexts]
    workers: Workers = field(default_factory=Workers)
    reply: Reply = field(default_factory=Reply)
    role: Role = field(default_factory=Role)
    said: Said = field(default_factory=Said)

    def __post_init__(self) -> None:
        check_types({table.name: getattr(self, table.name) for table in fields(self)})
        _compile_pattern("step.sentence_end", self.step.sentence_end)
        if _compile_pattern("answer.pattern", self.answer.pattern).groups < 1:
            raise InvalidArgument("prompts: answer.pattern needs a group that holds the answer")
        if not self.step.separator:
            raise InvalidArgument("prompts: step.separator must not be empty")
        if not all(self.stop.strings):
            raise InvalidArgument("prompts: stop.strings must not hold an empty one")
        with budget.limited():  # of all together
            self._try_texts()

    def _try_texts(self) -> None:
        """A misspelt name in a template shows now, not in the middle of a run."""
        for layout in (*self.layout, "custom"):
            for n in {1, 2, 5} if not self.workers.most else {min(n, self.workers.most) for n in (1, 2, 5)}:
                names = [f"Worker {i + 1}" for i in range(n)]
                wording = Wording(self, names, layout, thinking=True)
                wording.rules(), wording.task(""), wording.reply("</think>")
                wording.role(names[0], ""), wording.said("", None), wording.said("", names[0])
                for worker in range(len(names)):
                    wording.first(worker), wording.prefix(worker, 2)

    @classmethod
    def default(cls) -> PromptStyle:
        """The style that comes with the package."""
        return _default_style()

    @classmethod
    def load(cls, path: str | Path) -> PromptStyle:
        """Reads a TOML file. Raises InvalidArgument, which names the file and the key."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"prompts: {path} cannot be read: {error}") from error
        try:
            return cls.parse(text)
        except InvalidArgument as error:
            raise InvalidArgument(f"{path}: {error}") from error

    @classmethod
    def parse(cls, text: str) -> PromptStyle:
        """Reads the text of such a file."""
        if len(text) > MOST_TEXT:
            raise InvalidArgument(f"prompts: more than {MOST_TEXT} characters")
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidArgument(f"prompts: no valid TOML: {error}") from error
        except (RecursionError, ValueError) as error:  # too deep, or a number with too many digits
            raise InvalidArgument(f"prompts: no valid TOML: {error}") from error
        return cls(**from_tables(tables))

    @property
    def sentence_end(self) -> re.Pattern[str]:
        """step.sentence_end, compiled."""
        return re.compile(self.step.sentence_end)

    def find_answers(self, text: str) -> list[str]:
        """All answers in text, stripped, without empty ones."""
        answers = [match.group(1).strip() for match in re.finditer(self.answer.pattern, text)]
        return [answer for answer in answers if answer]


class Wording:
    """The texts of a style for the workers and layout of one run. marks: names that structure turns, which are text
    where a user says them."""

    def __init__(
        self, style: PromptStyle, names: Sequence[str], layout: str, thinking: bool, marks: Set[str] = frozenset()
    ) -> None:
        self.style, self._marks = style, marks
        self._names = list(names)
        # A single worker has nobody to be told apart from.
        none = LayoutTexts()
        self.layout = style.layout.get(layout, none) if len(names) > 1 else none
        self._context: dict[str, Any] = {
            "names": self._names,
            "n": len(self._names),
            "layout": layout,
            "thinking": thinking,
            "example": style.answer.example,
            "opening": _last_line(self.layout.opening),
            "header": _last_line(self.layout.header),
            "separator": _last_line(self.layout.separator),
        }

    def join(self, name: str) -> None:
        """One more worker: the texts that follow know of it. Those of the layout stay as they were."""
        self._names.append(name)
        self._context["n"] = len(self._names)
        self.__dict__.pop("_quotations", None)

    def find_answer(self, text: str) -> str | None:
        """The last answer in text; None if there is none. One that stands in the style's own texts is no answer but a
        quotation of how the rules show it. (The user's words may well hold the right one.)"""
        answers = self.style.find_answers(text)
        return next((answer for answer in reversed(answers) if answer not in self._quotations), None)

    @functools.cached_property
    def _quotations(self) -> frozenset[str]:
        style = self.style
        texts = [style.answer.example, self.rules(), self.task(""), style.redundancy.question]
        texts += map(self.first, range(len(self._names)))
        return frozenset(answer for text in texts for answer in style.find_answers(text))

    def prompt(
        self,
        chat: ChatTemplate,
        messages: Sequence[Message],
        date: Date | None = None,
        effort: str | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Prompt:
        """What all workers share, through the model's chat template. The last user message becomes the task."""
        at = max(i for i, message in enumerate(messages) if message["role"] == "user")
        task = {**messages[at], "content": self.task(messages[at]["content"])}
        messages = [*messages[:at], task, *messages[at + 1 :]]
        thinking = bool(self._context["thinking"])
        return chat.render(self.rules(), messages, thinking, date, effort, tools) + self.layout.opening

    def rules(self) -> str:
        """The system message."""
        if len(self._names) == 1:
            return self._render("rules.one", self.style.rules.one).strip()
        return self._render("rules.many", self.style.rules.many).strip()

    def task(self, problem: str) -> str:
        """The user message."""
        return self._render("rules.task", self.style.rules.task, problem=problem).strip()

    def first(self, worker: int) -> str:
        """How worker (counted from 0) opens its first step."""
        return self._render("step.first", self.style.step.first, **self._about(worker), step=1)

    def prefix(self, worker: int, step: int, question: bool = False) -> str:
        """How worker opens a later step, with the redundancy question if asked for."""
        prefix = self._render("step.prefix", self.style.step.prefix, **self._about(worker), step=step)
        return prefix + self.style.redundancy.question if question else prefix

    def role(self, name: str, role: str) -> str:
        """What the worker of this name reads of its role. "": there are no words for it."""
        return self._render("role.text", self.style.role.text, name=name, role=as_text(role, self._marks))

    def said(self, text: str, to: str | None) -> str:
        """What the workers read of what the user says, to all or to one of them. "": there are no words for it."""
        return self._render("said.text", self.style.said.text, text=as_text(text, self._marks), to=to)

    def reply(self, closing: str) -> str:
        """What opens the reply. closing: what closes the workers' thoughts; "": they do not think inside tags."""
        return self._render("reply.text", self.style.reply.text, closing=closing)

    def _about(self, worker: int) -> dict[str, Any]:
        others = self._names[:worker] + self._names[worker + 1 :]
        return {"name": self._names[worker], "number": worker + 1, "others": others}

    def _render(self, key: str, source: str, **more: Any) -> str:
        try:
            return _sandbox().render_text(_compile_text(source), {**self._context, **more})
        except jinja2.TemplateError as error:
            raise InvalidArgument(f"prompts: {key} cannot be rendered: {error}") from error


def _last_line(text: str) -> str:
    """The heading in a layout's text, as the rules quote it."""
    return text.strip().rpartition("\n")[2]


@functools.cache
def _default_style() -> PromptStyle:
    file = resources.files(__package__) / "default.toml"
    return PromptStyle.parse(file.read_text(encoding="utf-8"))


@functools.cache
def _sandbox() -> Sandbox:
    return Sandbox(jinja2.StrictUndefined)


@functools.lru_cache(maxsize=64)
def _compile_text(source: str) -> jinja2.Template:
    return _sandbox().compile_text(source)


def _compile_pattern(key: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError, TypeError) as error:
        raise InvalidArgument(f"prompts: {key} is no valid regular expression: {error}") from error
