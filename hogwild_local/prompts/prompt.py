"""Prompt: rendered text in which what users wrote can name no control token.

A template's own names of control tokens are meant; the same name inside a message is text: a document must not be able
to end its turn and begin another one. Only where a message holds such a name is it cut in two (behind its first
character), and what stands before and behind the cut is tokenized apart; all other texts are tokenized whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

from ..engine.protocols import ModelLike

NO_SPACE = "\u200b"  # a space of no width
_PRIVATE = range(0xF0000, 0xFFFFE)  # private use: no tokenizer, template or text has a meaning for them


@dataclass(frozen=True, slots=True)
class Prompt:
    """The pieces of a rendered text; between two of them is a cut."""

    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def __add__(self, text: str) -> Prompt:
        return replace(self, pieces=(*self.pieces[:-1], self.pieces[-1] + text))

    def tokens(self, model: ModelLike) -> list[int]:
        """Its tokens, with the BOS that the model wants, unless the template has written it."""
        first, *others = self.pieces
        bos = "" if model.bos is None else model.token_text(model.bos)
        whole = model.tokenize(first, add_special=not (bos and first.startswith(bos)), parse_special=True)
        if not others:
            return whole
        own = model.tokenize(first, add_special=False, parse_special=True)
        # What the model wants at the end of a text stands behind the last piece.
        end = next((at + len(own) for at in range(3) if whole[at : at + len(own)] == own), len(whole))
        inner = [token for piece in others for token in inner_tokens(model, piece, parse_special=True)]
        return whole[:end] + inner + whole[end:]


def inner_tokens(model: ModelLike, text: str, parse_special: bool = False) -> list[int]:
    """The tokens of a text that stands inside another one, such as a step's prefix.

    Tokenizers of SentencePiece models put a space before every text that they are given; here it would stand in the
    middle.
    """
    tokens = model.tokenize(text, add_special=False, parse_special=parse_special)
    if b"".join(model.token_bytes(token) or model.token_text(token).encode() for token in tokens) == text.encode():
        return tokens
    before = model.tokenize("\n", add_special=False, parse_special=False)
    both = model.tokenize("\n" + text, add_special=False, parse_special=parse_special)
    return both[len(before) :] if both[: len(before)] == before else tokens


def control_names(model: ModelLike, text: str) -> set[str]:
    """The names of control tokens that the model would read in a text. Those that stand for no name, such as the token
    of what is unknown, are not in the text."""
    tokens = set(model.tokenize(text, add_special=False, parse_special=True))
    names = {model.token_text(token) for token in tokens if not model.token_bytes(token)}
    return {name for name in names if len(name) > 1 and name in text}


def token_of(model: ModelLike, name: str) -> int | None:
    """The token of that name; None: the vocabulary has it in pieces."""
    tokens = model.tokenize(name, add_special=False, parse_special=True)
    return tokens[0] if len(tokens) == 1 else None


def cut_names(model: ModelLike, text: str, cut: str, also: AbstractSet[str] = frozenset()) -> str:
    """The text with `cut` behind the first character of each name of a control token, and of `also`."""
    # Once more: a shorter name may have stood inside a longer one.
    while names := control_names(model, text) | {name for name in also if name in text}:
        text = _cut(text, names, cut)
    return text


def as_text(text: str, names: AbstractSet[str]) -> str:
    """The text with a space of no width inside each of these names: vocabularies that show them make tokens of them in
    any text."""
    while found := {name for name in names if name in text}:
        text = _cut(text, found, NO_SPACE)
    return text


def _cut(text: str, names: AbstractSet[str], cut: str) -> str:
    """The text with `cut` behind the first character of each of these names."""
    begins = "|".join(map(re.escape, names))
    return re.sub(f"(?={begins}).", lambda match: match[0] + cut, text, flags=re.DOTALL)


def with_names_cut(model: ModelLike, value: Any, cut: str, also: AbstractSet[str] = frozenset()) -> Any:
    """A message, or a part of one, with `cut` inside each name of a control token, and of `also`. Roles are words: they
    have none."""
    if isinstance(value, str):
        return cut_names(model, value, cut, also)
    if isinstance(value, Mapping):
        return {
            with_names_cut(model, key, cut, also): item if key == "role" else with_names_cut(model, item, cut, also)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [with_names_cut(model, item, cut, also) for item in value]
    return value


def unused_character(text: str) -> str:
    """A private character that the text does not hold."""
    used = set(text)
    return next((chr(code) for code in _PRIVATE if chr(code) not in used), NO_SPACE)
