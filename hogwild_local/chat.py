"""Renders messages through a model's own chat template (Jinja, from the GGUF metadata), as Hugging Face
does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from .engine_types import ModelLike
from .errors import InvalidArgument, ModelError

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
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


class ChatTemplate:
    """The chat template of one model. Raises ModelError if it does not compile."""

    def __init__(self, model: ModelLike) -> None:
        source = model.chat_template or FALLBACK_TEMPLATE
        try:
            self._template = sandbox().from_string(source)
        except jinja2.TemplateError as error:
            raise ModelError(f"the model's chat template is broken: {error}") from error
        self._special = {
            "bos_token": "" if model.bos is None else model.token_text(model.bos),
            "eos_token": "" if model.eos is None else model.token_text(model.eos),
        }
        self.bos: str = self._special["bos_token"]
        self.can_switch_thinking = "enable_thinking" in source
        self.knows_thinking = self.can_switch_thinking or "<think>" in source

    def render(self, rules: str, messages: Sequence[Message], thinking: bool) -> str:
        """The prompt, up to where the assistant's text begins (inside <think> if thinking and the model knows
        it).

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
                messages=messages, add_generation_prompt=True, enable_thinking=thinking, **self._special
            )
        except (jinja2.TemplateError, TypeError, ValueError, KeyError) as error:
            raise _Refused(str(error)) from error

    def _open_or_close_thinking(self, text: str, thinking: bool) -> str:
        is_open = text.rstrip().endswith("<think>")
        if thinking and self.knows_thinking and not is_open:
            return text + "<think>\n"
        if not thinking and is_open:  # the template opens it whatever it is told
            return text + "\n</think>\n\n"
        return text


class _Refused(Exception):
    """The template raised: most often about roles."""


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
