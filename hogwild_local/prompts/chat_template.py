"""Renders messages through a model's own chat template (Jinja, from the GGUF metadata), as Hugging Face
does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date as Date
from datetime import datetime, time
from functools import cached_property, partial
from typing import Any

import jinja2
import jinja2.nodes

from ..engine.protocols import ModelLike
from ..errors import InvalidArgument, ModelError
from .messages import Message
from .prompt import NO_SPACE, Prompt, unused_character, with_names_cut
from .sandbox import Sandbox, TooMuch
from .tool_template import ToolTemplate

# Used where a model has no template: plain headings that any model can follow.
FALLBACK_TEMPLATE = """\
{%- for message in messages -%}
### {{ message['role'] | capitalize }}
{{ message['content'] }}

{% endfor -%}
{%- if add_generation_prompt -%}
### Assistant
{% endif -%}
"""


@dataclass(frozen=True, slots=True)
class ThinkTags:
    """How a template marks thoughts: what stands before and behind them; and, where they need marks of their own, what
    begins an answer without any, and what comes between thoughts that are closed and such a mark."""

    open: str
    close: str
    answer: str = ""
    turn: str = ""

    @property
    def closing(self) -> str:
        """What ends thoughts and begins the answer."""
        return self.close + self.turn + self.answer


_XML_TAG = re.compile(r"<((?:\w+:)?think(?::\w+)?)>")  # <think>, <seed:think>, ...
_OTHER_TAGS = (
    ThinkTags("<|START_THINKING|>", "<|END_THINKING|>"),
    ThinkTags("<|inner_prefix|>", "<|inner_suffix|>"),
    ThinkTags("<|channel>thought\n", "\n<channel|>"),
    ThinkTags("<|channel|>analysis<|message|>", "<|end|>", "<|channel|>final<|message|>", "<|start|>assistant"),
    ThinkTags(
        "<|think|>", "<|end|>", "<|content|>", "<|begin|>assistant"
    ),  # behind <|channel>thought: there it is the switch, not a tag
    ThinkTags("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    ThinkTags(" to=self<|message|>", "<|eom|>", " to=user<|message|>", "<|start|>assistant"),
    ThinkTags("[THINK]", "[/THINK]"),
    ThinkTags("Here are my reasoning steps:\n", "\n[BEGIN FINAL RESPONSE]\n"),
)

# The names that templates give the switch: values for thinking and for none. A template refuses words that it does not
# know, so words are given only where it has one of each; else they are no switch there.
_SWITCHES: dict[bool, dict[str, object]] = {
    True: {"enable_thinking": True, "thinking": True, "reasoning": True},
    False: {"enable_thinking": False, "thinking": False, "reasoning": False, "thinking_budget": 0},
}
_WORDS = {
    "thinking_mode": (("enabled",), ("disabled",)),
    "reasoning_effort": (("high",), ("no_think", "none", "minimal")),
}


class ChatTemplate:
    """The chat template of one model. Raises ModelError if it does not compile."""

    def __init__(self, model: ModelLike) -> None:
        source = model.chat_template or FALLBACK_TEMPLATE
        self._model, self._sandbox, self._source = model, Sandbox(), source
        try:
            self._template = self._sandbox.compile_text(source)
            constants = {node.value for node in self._sandbox.parse(source).find_all(jinja2.nodes.Const)}
        except jinja2.TemplateError as error:
            raise ModelError(f"the model's chat template is broken: {error}") from error
        self._special = {
            "bos_token": "" if model.bos is None else model.token_text(model.bos),
            "eos_token": "" if model.eos is None else model.token_text(model.eos),
        }
        self.bos: str = self._special["bos_token"]
        self._switches = _switches(constants)
        try:  # some tags are put together by the template: they can only be seen in what it writes
            sample = self._apply([{"role": "user", "content": ""}], True, Date.today())
        except TooMuch as error:
            raise ModelError(f"the model's chat template is broken: {error}") from error
        except _Refused:
            sample = ""
        self.think_tags = _find_tags(source + sample)

    @cached_property
    def tools(self) -> ToolTemplate:
        """What it makes of tools."""

        def apply(messages: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]], opens: bool) -> str | None:
            try:
                return self._apply(messages, True, Date.today(), tools, opens)
            except (_Refused, TooMuch):
                return None

        return ToolTemplate.of(apply, self._source)

    def render(
        self,
        rules: str,
        messages: Sequence[Message],
        thinking: bool,
        date: Date | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Prompt:
        """The prompt, up to where the assistant's text begins (inside its thoughts if thinking and the
        template marks them).

        rules go into the system message, or into the first user message where the template has no such role. date: the
        day that a template may ask for; None: today. tools: OpenAI's, which the template shows. Names of control tokens
        in rules and messages stay text.
        Raises InvalidArgument with the template's own words if it refuses the messages, or takes too much for them.
        """
        _check_characters(rules, messages)
        if any(message["role"] == "tool" or message.get("tool_calls") for message in messages):
            messages = self.tools.arranged(messages)
        apply = partial(self._apply, thinking=thinking, date=date or Date.today())
        try:
            arranged, text = _arranged(partial(apply, tools=tools), rules, messages)
            prompt = self._without_foreign_names(apply, arranged, tools, text)
        except (_Refused, TooMuch) as refused:
            raise InvalidArgument(f"the model's chat template refuses the messages: {refused}") from refused
        return prompt + self._open_or_close_thinking(text, thinking)[len(text) :]

    def _without_foreign_names(
        self,
        apply: Callable[..., str],
        messages: list[dict[str, Any]],
        tools: Sequence[Mapping[str, Any]],
        text: str,
    ) -> Prompt:
        """text is what became of the messages and tools. Raises _Refused."""
        given = [messages, list(tools)]
        mark = unused_character(f"{text}{given}")
        marked = with_names_cut(self._model, given, mark)
        if marked == given:
            return Prompt((text,))
        pieces = apply(marked[0], tools=marked[1]).split(mark)
        if "".join(pieces) == text:
            return Prompt(tuple(pieces))
        # The template looks at the names, or changes them: they get a character that may stay.
        kept = with_names_cut(self._model, given, NO_SPACE)
        return Prompt((apply(kept[0], tools=kept[1]),))

    def _apply(
        self,
        messages: list[dict[str, Any]],
        thinking: bool,
        date: Date,
        tools: Sequence[Mapping[str, Any]] = (),
        opens: bool = True,
    ) -> str:
        """opens: the assistant's next turn."""
        today = datetime.combine(date, time())  # by the hour, a prompt could not be repeated
        try:
            return self._sandbox.render_text(
                self._template,
                {
                    "messages": messages,
                    "add_generation_prompt": opens,
                    **({"tools": list(tools)} if tools else {}),
                    "strftime_now": partial(_strftime, today),
                    **self._switches[thinking],
                    **self._special,
                },
            )
        except TooMuch:
            raise
        except jinja2.TemplateError as error:
            raise _Refused(str(error)) from error

    def _open_or_close_thinking(self, text: str, thinking: bool) -> str:
        tags, end = self.think_tags, text.rstrip()
        if tags is None or end.endswith(tags.close.strip()):
            return text
        is_open = end.endswith(tags.open.strip())
        if thinking:
            return text if is_open else text + tags.open
        return text + (tags.close if is_open else tags.answer)  # some templates open it whatever they are told


class _Refused(Exception):
    """The template raised: most often about roles."""


def _find_tags(text: str) -> ThinkTags | None:
    for tags in _OTHER_TAGS:
        if tags.open.strip() in text:
            return tags
    found = _XML_TAG.search(text)
    return None if found is None else ThinkTags(f"<{found[1]}>\n", f"\n</{found[1]}>\n\n")


def _switches(constants: set[Any]) -> dict[bool, dict[str, object]]:
    switches = {thinking: dict(values) for thinking, values in _SWITCHES.items()}
    for name, words in _WORDS.items():
        on, off = ([word for word in side if word in constants] for side in words)
        if on and off:
            switches[True][name], switches[False][name] = on[0], off[0]
    return switches


def _arranged(apply: Callable[[Any], str], rules: str, messages: Sequence[Message]) -> tuple[list[dict[str, str]], str]:
    """The messages with the rules among them, and what becomes of them. Raises _Refused."""
    arranged = _with_system(rules, messages)
    try:
        text = apply(arranged)
    except _Refused:
        text = ""
    if rules.strip() not in text:  # refused, or dropped without a word
        arranged = _with_user(rules, messages)
        text = apply(arranged)
    return arranged, text


def _with_system(rules: str, messages: Sequence[Message]) -> list[dict[str, str]]:
    if messages[0]["role"] == "system":
        rules, messages = f"{rules}\n\n{messages[0]['content']}", messages[1:]
    return [{"role": "system", "content": rules}, *map(dict, messages)]


def _with_user(rules: str, messages: Sequence[Message]) -> list[dict[str, str]]:
    system, *rest = _with_system(rules, messages)
    if not rest or rest[0]["role"] != "user":
        return [{"role": "user", "content": system["content"]}, *rest]
    return [{"role": "user", "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]


def checked_date(value: str | Date | None) -> Date:
    """A day, given as such or as YYYY-MM-DD; None: today. Raises InvalidArgument."""
    if value is None:
        return Date.today()
    try:
        return Date.fromisoformat(value if isinstance(value, str) else value.isoformat()[:10])
    except (AttributeError, TypeError, ValueError):
        raise InvalidArgument(f"date must be a day such as 2026-07-31, not {value!r}") from None


def _check_characters(rules: str, messages: Sequence[Message]) -> None:
    for message in messages:
        if not re.fullmatch(r"[\w-]+", message["role"]):
            raise InvalidArgument(f"prompt: the role of a message must be a word, not {message['role']!r}")
    for text in (rules, *(value for message in messages for value in message.values() if isinstance(value, str))):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"prompt: a message holds what is no character: {error}") from None


def _strftime(today: datetime, form: str) -> str:
    if re.search(r"%\W*\d{3}", form):
        raise TooMuch(f"a width in the form of a date: {form[:40]!r}")
    return today.strftime(form)
