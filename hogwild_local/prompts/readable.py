"""Whether a model can read a text at all."""

from __future__ import annotations

from collections.abc import Iterable

from ..engine.protocols import ModelLike
from ..errors import InvalidArgument

MOST_SHOWN = 8


def check_readable(model: ModelLike, texts: Iterable[str], what: str = "prompt") -> None:
    """Raises InvalidArgument, naming the characters, if the model's vocabulary has no token for some of the texts: a
    tokenizer drops them without a word. White space may be dropped."""
    unknown: dict[str, None] = {}
    for text in texts:
        tokens = model.tokenize(text, add_special=False)
        if b"".join(map(model.token_bytes, tokens)) != text.encode("utf-8", "surrogateescape"):
            unknown |= dict.fromkeys(char for char in dict.fromkeys(text) if not _is_known(model, char))
    if unknown:
        shown = " ".join(list(unknown)[:MOST_SHOWN]) + (" ..." if len(unknown) > MOST_SHOWN else "")
        raise InvalidArgument(f"{what}: the model cannot read it: it has no tokens for {shown}")


def _is_known(model: ModelLike, character: str) -> bool:
    return character.isspace() or bool(model.tokenize(character, add_special=False))
