"""All that is known of a reply's form before it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidArgument
from .call_grammar import Grammar
from .calls import Call, Family
from .reading import read_calls
from .response import grammar_of
from .tools import Tools


@dataclass(frozen=True, slots=True)
class ReplyForm:
    """grammar: what holds it; None: nothing. family: how the model writes calls; None: it may call no tools. schemas:
    of those that it may call. hidden: a text of the model's that opens an answer, and is no part of it."""

    grammar: Grammar | None = None
    family: Family | None = None
    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    hidden: str = ""

    @classmethod
    def of(
        cls, response_format: Mapping[str, object] | None, tools: Tools | None, family: Family | None, hidden: str
    ) -> ReplyForm:
        """family and hidden: where tools may be called. Raises InvalidArgument."""
        grammar = grammar_of(response_format)
        if tools is None or not tools.callable or family is None:
            return cls(None if grammar is None else Grammar(grammar))
        if grammar is not None:
            raise InvalidArgument(
                "response_format and tools cannot both hold a reply: with tool_choice='none' the tools are only shown"
            )
        return cls(tools.grammar(family), family, tools.callable, hidden)

    @property
    def openings(self) -> Sequence[str]:
        """Texts that calls begin with."""
        return [form.opens for form in self.family.forms] if self.family else ()

    def read(self, text: str) -> tuple[str, list[Call]]:
        """What a whole reply says, and the calls that it makes."""
        if self.family is None:
            return text, []
        return read_calls(text, self.family, self.schemas)
