"""The same for the older completions: text, and no reasoning but inline."""

from __future__ import annotations

from typing import Any

from ..workers.result import Result
from . import chunks, likely
from .chunks import ChatChunks, ChunkSettings
from .live import LiveRun


class TextChunks(ChatChunks):
    """An encoder of one run."""

    object = "text_completion"

    def _choice(self, delta: dict[str, Any], finish: str | None, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
        text = delta.get("content", "")
        return {"index": 0, "text": text, "finish_reason": finish, "logprobs": likely.of_text(logprobs)}


def whole(settings: ChunkSettings, live: LiveRun, result: Result) -> dict[str, Any]:
    """The same in one piece."""
    chat = chunks.whole(settings, live, result)
    choice = chat["choices"][0]
    text = {"index": 0, "text": choice["message"]["content"] or "", "finish_reason": choice["finish_reason"]}
    logprobs = likely.of_text((choice["logprobs"] or {}).get("content", ()))
    return {**chat, "object": "text_completion", "choices": [{**text, "logprobs": logprobs}]}
