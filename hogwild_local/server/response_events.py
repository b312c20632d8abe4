"""Events of a run as those of OpenAI's responses. Each worker has an item of its own, so each of its tokens goes out as
it is written: clients tell them apart by output_index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import events as ev
from . import sse
from .body import Body
from .live import LiveRun


class ResponseEvents:
    """An encoder of one run. .response is the whole, as far as it has come; .said what it adds to the conversation."""

    def __init__(self, name: str, model: str, body: Body) -> None:
        self.name = name
        self.response: dict[str, Any] = {
            "id": name,
            "object": "response",
            "status": "in_progress",
            "model": model,
            "output": [],
            "error": None,
            "incomplete_details": None,
            "instructions": body.text("instructions") or None,
            "metadata": dict(body.object("metadata")),
            "parallel_tool_calls": False,
            "temperature": body.get("temperature"),
            "tool_choice": "none",
            "tools": [],
            "top_p": body.get("top_p"),
        }
        self._n_events = 0
        self._items: dict[str | None, int] = {}
        """By worker, None for the message: where its item stands in the output."""

    @property
    def said(self) -> list[Mapping[str, Any]]:
        if None not in self._items:
            return []
        content = self.response["output"][self._items[None]]["content"][0]["text"]
        return [{"role": "assistant", "content": content}]

    def __call__(self, live: LiveRun, event: ev.Event) -> list[bytes]:
        match event:
            case ev.RunStarted():
                self.response["created_at"] = live.created
                begin = [self._event("created", response=self.response)]
                return begin + [self._item(name, _reasoning(name)) for name in event.workers]
            case ev.StepStarted():
                return self._thought(event.worker, event.text)
            case ev.Token(worker=str() as worker):
                return self._thought(worker, event.text)
            case ev.WorkerFinished() if event.worker in self._items:
                return self._end_thoughts(event.worker)
            case ev.ReplyToken():
                return self._said(event.text)
            case ev.RunEnded():
                return self._last(live, event)
        return []

    def _thought(self, worker: str, text: str) -> list[bytes]:
        if not text:
            return []
        place = self._items[worker]
        self.response["output"][place]["content"][0]["text"] += text
        return [self._delta("reasoning_text", place, text)]

    def _end_thoughts(self, worker: str) -> list[bytes]:
        place = self._items[worker]
        item = self.response["output"][place]
        item["status"] = "completed"
        text = item["content"][0]["text"]
        return [
            self._event("reasoning_text.done", item_id=item["id"], output_index=place, content_index=0, text=text),
            self._event("output_item.done", output_index=place, item=item),
        ]

    def _said(self, text: str) -> list[bytes]:
        events = []
        if None not in self._items:
            message = {"type": "message", "role": "assistant", "status": "in_progress", "content": []}
            events.append(self._item(None, message))
            item = self.response["output"][self._items[None]]
            part = {"type": "output_text", "text": "", "annotations": []}
            place = self._items[None]
            events.append(
                self._event("content_part.added", item_id=item["id"], output_index=place, content_index=0, part=part)
            )
            item["content"] = [part]
        if text:
            place = self._items[None]
            self.response["output"][place]["content"][0]["text"] += text
            events.append(self._delta("output_text", place, text))
        return events

    def _last(self, live: LiveRun, event: ev.RunEnded) -> list[bytes]:
        events = [] if None in self._items else self._said(event.answer or "")
        place = self._items[None]
        item = self.response["output"][place]
        item["status"] = "completed"
        where = {"item_id": item["id"], "output_index": place, "content_index": 0}
        (part,) = item["content"]
        events.append(self._event("output_text.done", **where, text=part["text"], logprobs=[]))
        events.append(self._event("content_part.done", **where, part=part))
        events.append(self._event("output_item.done", output_index=place, item=item))
        is_whole = event.reason not in ("budget", "cache_full")
        self.response["status"] = "completed" if is_whole else "incomplete"
        self.response["incomplete_details"] = None if is_whole else {"reason": "max_output_tokens"}
        self.response["usage"] = _usage(event.usage, sum(live.n_written.values()))
        return [*events, self._event(self.response["status"], response=self.response)]

    def _item(self, who: str | None, item: dict[str, Any]) -> bytes:
        place = self._items[who] = len(self.response["output"])
        self.response["output"].append({"id": f"{self.name}-{place}", **item})
        return self._event("output_item.added", output_index=place, item=self.response["output"][place])

    def _delta(self, kind: str, place: int, text: str) -> bytes:
        item = self.response["output"][place]["id"]
        more: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
        return self._event(f"{kind}.delta", item_id=item, output_index=place, content_index=0, delta=text, **more)

    def _event(self, kind: str, **fields: Any) -> bytes:
        number = self._n_events
        self._n_events += 1
        return sse.data({"type": f"response.{kind}", "sequence_number": number, **fields}, f"response.{kind}")


def _reasoning(worker: str) -> dict[str, Any]:
    content = [{"type": "reasoning_text", "text": ""}]
    return {"type": "reasoning", "summary": [], "status": "in_progress", "content": content, "worker": worker}


def _usage(usage: ev.Usage, n_reasoning: int) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": n_reasoning},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
