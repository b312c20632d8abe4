"""Renders messages through a model's own chat template (Jinja, from the GGUF metadata), as Hugging Face
does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date as Date
from functools import cached_property, partial
from typing import Any

import jinja2

from ..engine.protocols import ModelLike
from ..errors import InvalidArgument, ModelError
from .dialects import DONE, dialect_of, end_of_turn, plain_tags
from .messages import Message
from .prompt import NO_SPACE, Prompt, token_of, unused_character, with_names_cut
from .sandbox import Sandbox, TooMuch
from .tool_template import ToolTemplate
from .variables import Variables

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


class ChatTemplate:
    """The chat template of one model. Raises ModelError if it does not compile."""

    def __init__(self, model: ModelLike) -> None:
        source = model.chat_template or FALLBACK_TEMPLATE
        self._model, self._sandbox, self._source = model, Sandbox(), source
        try:
            self._template = self._sandbox.compile_text(source)
            tree = self._sandbox.parse(source)
        except jinja2.TemplateError as error:
            raise ModelError(f"the model's chat template is broken: {error}") from error
        self._special = {
            "bos_token": "" if model.bos is None else model.token_text(model.bos),
            "eos_token": "" if model.eos is None else model.token_text(model.eos),
        }
        self.bos: str = self._special["bos_token"]
        self._variables = Variables(tree)
        begun, done = self._samples()
        self.dialect = dialect_of(source + begun)
        self.think_tags = self.dialect.tags or plain_tags(source + begun, begun, done)
        ends = [token_of(model, name) for name in (*self.dialect.ends, end_of_turn(done)) if name]
        self.turn_ends = frozenset(token for token in ends if token is not None)
        """Tokens that end a turn, whatever the vocabulary says of them."""

    @property
    def asks_for_effort(self) -> bool:
        """Whether it asks how much to think; else render() refuses an effort."""
        return self._variables.asks_for_effort

    @cached_property
    def tools(self) -> ToolTemplate:
        """What it makes of tools."""

        def apply(messages: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]], opens: bool) -> str | None:
            try:
                return self._apply(messages, self._variables.values(True, Date.today()), opens, tools)
            except (_Refused, TooMuch):
                return None

        return ToolTemplate.of(apply, self._source)

    def _samples(self) -> tuple[str, str]:
        """A prompt up to where a turn begins, and with a turn that is done: some marks are put together by the template
        and can only be seen in what it writes. "" for what it refuses."""
        question, values = {"role": "user", "content": "(question)"}, self._variables.values(True, Date.today())
        texts = []
        for messages, opens in (([question], True), ([question, DONE], False)):
            try:
                texts.append(self._apply(messages, values, opens))
            except TooMuch as error:
                raise ModelError(f"the model's chat template is broken: {error}") from error
            except _Refused:
                texts.append("")
        return texts[0], texts[1]

    def render(
        self,
        rules: str,
        messages: Sequence[Message],
        thinking: bool,
        date: Date | None = None,
        effort: str | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Prompt:
        """The prompt, up to where the assistant's text begins (inside its thoughts if thinking and the
        template marks them).

        rules go into the system message, or into the first user message where the template has no such role. date: the
        day that a template may ask for; None: today. effort: how much to think, in the template's own word; None: as
        it chooses. tools: OpenAI's, which the template shows. Names of control tokens in all of these stay text.
        Thoughts of earlier turns, a message's reasoning_content, stand where the template wants them.
        Raises InvalidArgument with the template's own words if it refuses the messages, or takes too much for them; and
        for an effort where it asks for none.
        """
        _check_characters(rules, messages)
        if any(message["role"] == "tool" or message.get("tool_calls") for message in messages):
            messages = self.tools.arranged(messages)
        keeps = any(message.get("reasoning_content") for message in messages)
        apply = partial(self._apply, values=self._variables.values(thinking, date or Date.today(), effort, keeps))
        try:
            placed = [self.dialect.with_thoughts(message) for message in messages]
            arranged, text = _arranged(partial(apply, tools=tools), rules, placed)
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
        given = (messages, list(tools))
        mark = unused_character(f"{text}{given}")
        marked = self._with_names_cut(*given, mark)
        if marked == given:
            return Prompt((text,))
        pieces = apply(marked[0], tools=marked[1]).split(mark)
        if "".join(pieces) == text:
            return Prompt(tuple(pieces))
        # The template looks at the names, or changes them: they get a character that may stay.
        kept = self._with_names_cut(*given, NO_SPACE)
        return Prompt((apply(kept[0], tools=kept[1]),))

    def _with_names_cut(
        self, messages: list[dict[str, Any]], tools: list[Mapping[str, Any]], cut: str
    ) -> tuple[list[dict[str, Any]], list[Mapping[str, Any]]]:
        """In what the model said itself, only names of control tokens: templates look there for old thoughts."""
        also = self.dialect.structure
        cut_messages = [
            with_names_cut(self._model, message, cut, frozenset() if message["role"] == "assistant" else also)
            for message in messages
        ]
        return cut_messages, with_names_cut(self._model, tools, cut, also)

    def _apply(
        self,
        messages: list[dict[str, Any]],
        values: Mapping[str, Any],
        opens: bool = True,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """opens: the assistant's next turn."""
        shown = {"tools": list(tools)} if tools else {}
        try:
            return self._sandbox.render_text(
                self._template,
                {"messages": messages, "add_generation_prompt": opens, **shown, **values, **self._special},
            )
        except TooMuch:
            raise
        except jinja2.TemplateError as error:
            raise _Refused(str(error)) from error

    def _open_or_close_thinking(self, text: str, thinking: bool) -> str:
        tags, end = self.think_tags, text.rstrip()
        if tags is None:
            return text
        is_open, is_closed = end.endswith(tags.open.strip()), end.endswith(tags.close.strip())
        if thinking:
            return text if is_open or is_closed else text + tags.open
        if is_open:  # some templates open it whatever they are told
            return text + tags.closing
        return text if tags.answer and end.endswith(tags.answer.strip()) else text + tags.answer


class _Refused(Exception):
    """The template raised: most often about roles."""


def _arranged(apply: Callable[[Any], str], rules: str, messages: Sequence[Message]) -> tuple[list[dict[str, Any]], str]:
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


def _with_system(rules: str, messages: Sequence[Message]) -> list[dict[str, Any]]:
    if messages[0]["role"] == "system":
        rules, messages = f"{rules}\n\n{messages[0]['content']}", messages[1:]
    return [{"role": "system", "content": rules}, *map(dict, messages)]


def _with_user(rules: str, messages: Sequence[Message]) -> list[dict[str, Any]]:
    system, *rest = _with_system(rules, messages)
    if not rest or rest[0]["role"] != "user":
        return [{"role": "user", "content": system["content"]}, *rest]
    return [{"role": "user", "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]


def _check_characters(rules: str, messages: Sequence[Message]) -> None:
    for message in messages:
        if not re.fullmatch(r"[\w-]+", message["role"]):
            raise InvalidArgument(f"prompt: the role of a message must be a word, not {message['role']!r}")
    for text in (rules, *(value for message in messages for value in message.values() if isinstance(value, str))):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"prompt: a message holds what is no character: {error}") from None
