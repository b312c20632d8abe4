"""Renders messages through a model's own chat template (Jinja, from the GGUF metadata), as Hugging Face
does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..engine.protocols import ModelLike
from ..errors import InvalidArgument, ModelError

Message = Mapping[str, str]

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
    """How a template marks thoughts: what stands before and behind them, and what begins an answer without any
    where it needs a mark of its own."""

    open: str
    close: str
    answer: str = ""


_XML_TAG = re.compile(r"<((?:\w+:)?think(?::\w+)?)>")  # <think>, <seed:think>, ...
_OTHER_TAGS = (
    ThinkTags("<|START_THINKING|>", "<|END_THINKING|>"),
    ThinkTags("<|inner_prefix|>", "<|inner_suffix|>"),
    ThinkTags("<|channel>thought\n", "\n<channel|>"),
    ThinkTags("<|channel|>analysis<|message|>", "<|end|>", "<|channel|>final<|message|>"),
    ThinkTags("<|think|>", "<|end|>", "<|content|>"),  # behind <|channel>thought: there it is the switch, not a tag
    ThinkTags("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    ThinkTags(" to=self<|message|>", "<|eom|>", " to=user<|message|>"),
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


class _Nothing(jinja2.Undefined):
    """What a template was not told renders as nothing, also where it is joined to a text."""

    def __add__(self, other: Any) -> Any:
        return other

    __radd__ = __add__


class _GenerationTag(jinja2.ext.Extension):
    """{% generation %} marks training targets in some templates; for rendering it is nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[jinja2.nodes.Node]:
        parser.stream.skip(1)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def sandbox() -> ImmutableSandboxedEnvironment:
    """The environment of every template: theirs come from model files, which nobody has read. Undefined names
    render as nothing, as templates expect."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=_Nothing,
        extensions=[_GenerationTag, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


class ChatTemplate:
    """The chat template of one model. Raises ModelError if it does not compile."""

    def __init__(self, model: ModelLike) -> None:
        source = model.chat_template or FALLBACK_TEMPLATE
        environment = sandbox()
        try:
            self._template = environment.from_string(source)
            constants = {node.value for node in environment.parse(source).find_all(jinja2.nodes.Const)}
        except jinja2.TemplateError as error:
            raise ModelError(f"the model's chat template is broken: {error}") from error
        self._special = {
            "bos_token": "" if model.bos is None else model.token_text(model.bos),
            "eos_token": "" if model.eos is None else model.token_text(model.eos),
        }
        self.bos: str = self._special["bos_token"]
        self._switches = _switches(constants)
        try:  # some tags are put together by the template: they can only be seen in what it writes
            sample = self._apply([{"role": "user", "content": ""}], True)
        except _Refused:
            sample = ""
        self.think_tags = _find_tags(source + sample)

    def render(self, rules: str, messages: Sequence[Message], thinking: bool) -> str:
        """The prompt, up to where the assistant's text begins (inside its thoughts if thinking and the
        template marks them).

        rules go into the system message, or into the first user message where the template has no such role.
        Raises InvalidArgument with the template's own words if it refuses the messages.
        """
        try:
            text = self._apply(_with_system(rules, messages), thinking)
        except _Refused:
            text = ""
        if rules.strip() not in text:  # refused, or dropped without a word
            try:
                text = self._apply(_with_user(rules, messages), thinking)
            except _Refused as refused:
                raise InvalidArgument(f"the model's chat template refuses the messages: {refused}") from refused
        return self._open_or_close_thinking(text, thinking)

    def _apply(self, messages: list[dict[str, str]], thinking: bool) -> str:
        try:
            return self._template.render(
                messages=messages,
                add_generation_prompt=True,
                **self._switches[thinking],
                **self._special,
            )
        except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
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


def _with_system(rules: str, messages: Sequence[Message]) -> list[dict[str, str]]:
    if messages[0]["role"] == "system":
        rules, messages = f"{rules}\n\n{messages[0]['content']}", messages[1:]
    return [{"role": "system", "content": rules}, *map(dict, messages)]


def _with_user(rules: str, messages: Sequence[Message]) -> list[dict[str, str]]:
    system, *rest = _with_system(rules, messages)
    if not rest or rest[0]["role"] != "user":
        return [{"role": "user", "content": system["content"]}, *rest]
    return [{"role": "user", "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)
