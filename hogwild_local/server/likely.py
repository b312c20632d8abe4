"""Log-probabilities of a reply's tokens, as OpenAI tells them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .. import events as ev

Piece = Callable[[int], bytes]
"""The bytes of a token."""


def entry(piece: Piece, event: ev.ReplyToken) -> dict[str, Any]:
    """Of a token that has one."""
    assert event.token is not None
    assert event.logprob is not None
    top = [_of(piece, token, logprob) for token, logprob in event.top_logprobs]
    return {**_of(piece, event.token, event.logprob), "top_logprobs": top}


def _of(piece: Piece, token: int, logprob: float) -> dict[str, Any]:
    raw = piece(token)
    return {"token": raw.decode(errors="replace"), "logprob": logprob, "bytes": list(raw)}


def of_chat(entries: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """In a choice of a chat completion; None: there are none."""
    return {"content": list(entries), "refusal": None} if entries else None


def of_text(entries: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """In a choice of an older completion."""
    if not entries:
        return None
    return {
        "tokens": [each["token"] for each in entries],
        "token_logprobs": [each["logprob"] for each in entries],
        "top_logprobs": [{top["token"]: top["logprob"] for top in each["top_logprobs"]} for each in entries],
        "text_offset": [],
    }
