"""Events of a run as chunks of a chat completion: the workers' steps as reasoning, the reply as content.

A step goes out when it is finished, for clients show one text of reasoning: tokens of several workers would be mixed
up. Who wants each token reads the run's own events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import events as ev
from ..workers.result import Result
from . import likely
from .body import Body
from .likely import Piece
from .live import LiveRun
from .service import timings_of
from .sse import DONE, data


@dataclass(frozen=True, slots=True)
class ChunkSettings:
    """What a client wants of a completion."""

    name: str
    model: str
    reasoning: str
    """separate: in reasoning_content; inline: in content, between think tags; none: not at all."""
    usage: bool
    timings: bool
    progress: bool
    piece: Piece

    @classmethod
    def of(cls, body: Body, name: str, model: str, reasoning: str, piece: Piece) -> ChunkSettings:
        """reasoning: the server's default; piece: of its model. Raises Fault."""
        choices = sorted(("separate", "inline", "none"), key=lambda choice: choice != reasoning)
        return cls(
            name=name,
            model=body.text("model", model) or model,
            reasoning=body.one_of("reasoning_format", *choices, "auto", "deepseek").replace("auto", choices[0]),
            usage=body.object("stream_options").flag("include_usage"),
            timings=body.flag("timings_per_token"),
            progress=body.flag("return_progress"),
            piece=piece,
        )


class ChatChunks:
    """An encoder of one run."""

    object = "chat.completion.chunk"

    def __init__(self, settings: ChunkSettings) -> None:
        self._settings = settings
        self._is_open = False
        self._thinks: bool | None = None  # inline: whether a think tag is open
        self._replied = False
        self._n_calls = 0
        self._logprobs: list[dict[str, Any]] = []
        """Of tokens whose text is still to come."""

    def __call__(self, live: LiveRun, event: ev.Event) -> list[bytes]:
        chunks: list[dict[str, Any]] = []
        if not self._is_open and not isinstance(event, ev.RunQueued):
            self._is_open = True
            chunks.append(self._delta(live, {"role": "assistant", "content": ""}))
        match event:
            case ev.PromptProgress() if self._settings.progress:
                chunks.append(self._delta(live, {}, prompt_progress=_progress(live, event)))
            case ev.StepEnded() if event.text:
                chunks += self._step(live, event)
            case ev.ReplyToken():
                if event.logprob is not None:
                    self._logprobs.append(likely.entry(self._settings.piece, event))
                if event.text:
                    chunks += self._said(live, event.text)
            case ev.ToolCall():
                chunks += self._called(live, event)
            case ev.PassEnded() if self._settings.timings:
                chunks.append(self._delta(live, {}, timings=timings_of(event.timings, event.usage)))
            case ev.RunEnded():
                return [data(chunk) for chunk in [*chunks, *self._last(live, event)]] + [DONE]
        return [data(chunk) for chunk in chunks]

    def _step(self, live: LiveRun, event: ev.StepEnded) -> list[dict[str, Any]]:
        who = {"worker": event.worker, "step": event.step, "n_tokens": event.n_tokens, "reason": event.reason}
        match self._settings.reasoning:
            case "none":
                return []
            case "inline":
                begin = "" if self._thinks else "<think>\n"
                self._thinks = True
                return [self._delta(live, {"content": f"{begin}{event.text}\n\n"}, hogwild=who)]
            case _:
                return [self._delta(live, {"reasoning_content": f"{event.text}\n\n"}, hogwild=who)]

    def _said(self, live: LiveRun, text: str) -> list[dict[str, Any]]:
        self._replied = True
        end = "</think>\n\n" if self._thinks else ""
        self._thinks = False
        return [self._delta(live, {"content": end + text})]

    def _called(self, live: LiveRun, event: ev.ToolCall) -> list[dict[str, Any]]:
        chunks = self._said(live, "") if self._thinks else []
        call = {"index": self._n_calls, **event.in_message()}
        self._n_calls += 1
        return [*chunks, self._delta(live, {"tool_calls": [call]})]

    def _last(self, live: LiveRun, event: ev.RunEnded) -> list[dict[str, Any]]:
        chunks = []
        if not self._replied and not self._n_calls and event.answer:  # prompts without words for a reply
            chunks += self._said(live, event.answer)
        why = {"reason": event.reason, "answer": event.answer, "seed": live.started.seed if live.started else None}
        timings = timings_of(event.timings, event.usage)
        chunks.append(self._delta(live, {}, finish_reason(live, event), hogwild=why, timings=timings))
        if self._settings.usage:
            chunks.append({**self._head(live), "choices": [], "usage": usage_of(event.usage)})
        return chunks

    def _delta(self, live: LiveRun, delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
        logprobs: list[dict[str, Any]] = []
        if "content" in delta or finish is not None:
            logprobs, self._logprobs = self._logprobs, logprobs
        return {**self._head(live), "choices": [self._choice(delta, finish, logprobs)], **more}

    def _choice(self, delta: dict[str, Any], finish: str | None, logprobs: list[dict[str, Any]]) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": likely.of_chat(logprobs)}

    def _head(self, live: LiveRun) -> dict[str, Any]:
        return {
            "id": self._settings.name,
            "object": self.object,
            "created": live.created,
            "model": self._settings.model,
        }


def whole(settings: ChunkSettings, live: LiveRun, result: Result) -> dict[str, Any]:
    """The same in one piece."""
    assert live.ended is not None
    said = result.reply if result.reply is not None else result.answer or ""
    message: dict[str, Any] = {"role": "assistant", "content": said}
    if result.tool_calls:
        message |= {"content": said or None, "tool_calls": [call.in_message() for call in result.tool_calls]}
    if settings.reasoning == "inline" and result.history:
        message["content"] = f"<think>\n{result.history}\n\n</think>\n\n{said}"
    elif settings.reasoning != "none":
        message["reasoning_content"] = result.history
    return {
        "id": settings.name,
        "object": "chat.completion",
        "created": live.created,
        "model": settings.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": finish_reason(live, live.ended),
                "logprobs": likely.of_chat([likely.entry(settings.piece, event) for event in live.reply_tokens]),
            }
        ],
        "usage": usage_of(result.usage),
        "timings": timings_of(result.timings, result.usage),
        "hogwild": {
            "workers": dict(result.texts),
            "reason": result.reason,
            "answer": result.answer,
            "seed": result.seed,
        },
    }


def finish_reason(live: LiveRun, event: ev.RunEnded) -> str:
    """OpenAI's word for why it ended."""
    if live.calls:
        return "tool_calls"
    if live.reply_reason is not None:
        return "length" if live.reply_reason in ("length", "cache_full") else "stop"
    return "length" if event.reason in ("budget", "cache_full") else "stop"


def usage_of(usage: ev.Usage) -> dict[str, Any]:
    """As OpenAI has it."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _progress(live: LiveRun, event: ev.PromptProgress) -> dict[str, Any]:
    """As llama-server has it."""
    return {"total": event.total, "cache": live.n_cached, "processed": event.done, "time_ms": live.ms_since_start()}
