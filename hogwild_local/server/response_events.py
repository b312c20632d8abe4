"""Events of a run as those of OpenAI's responses. Each worker has an item of its own, so each of its tokens goes out as
it is written: clients tell them apart by output_index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import events as ev
from . import sse
from .body import Body
from .chunks import finish_reason
from .likely import Piece, entry
from .live import LiveRun


class ResponseEvents:
    """An encoder of one run. piece: of its model. .response is the whole, as far as it has come; .said what it adds to
    the conversation."""

    def __init__(self, name: str, model: str, body: Body, piece: Piece) -> None:
        self.name, self._piece = name, piece
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
            "parallel_tool_calls": body.get("parallel_tool_calls", True),
            "temperature": body.get("temperature"),
            "tool_choice": body.get("tool_choice", "auto"),
            "tools": body.get("tools", []),
            "top_p": body.get("top_p"),
        }
        self._n_events = 0
        self._items: dict[str | None, int] = {}
        """By worker, None for the message: where its item stands in the output."""
        self._calls: list[dict[str, Any]] = []
        self._logprobs: list[dict[str, Any]] = []
        """Of tokens whose text is still to come."""

    @property
    def said(self) -> list[Mapping[str, Any]]:
        content = self.response["output"][self._items[None]]["content"][0]["text"] if None in self._items else None
        calls = {"tool_calls": self._calls} if self._calls else {}
        return [{"role": "assistant", "content": content, **calls}] if calls or content is not None else []

    def __call__(self, live: LiveRun, event: ev.Event) -> list[bytes]:
        match event:
            case ev.RunStarted():
                return self._begin(live) + [self._item(name, _reasoning(name)) for name in event.workers]
            case ev.WorkerJoined():
                return [self._item(event.worker, _reasoning(event.worker))]
            case ev.StepStarted():
                return self._thought(event.worker, event.text)
            case ev.Token(worker=str() as worker):
                return self._thought(worker, event.text)
            case ev.WorkerFinished() if event.worker in self._items:
                return self._end_thoughts(event.worker)
            case ev.ReplyToken():
                if event.logprob is not None:
                    self._logprobs.append(entry(self._piece, event))
                return self._said(event.text)
            case ev.ToolCall():
                return self._called(event)
            case ev.RunEnded():
                return self._last(live, event)
        return []

    def _begin(self, live: LiveRun) -> list[bytes]:
        self.response["created_at"] = live.created
        return [self._event("created", response=self.response)]

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
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            place = self._items[None]
            events.append(
                self._event("content_part.added", item_id=item["id"], output_index=place, content_index=0, part=part)
            )
            item["content"] = [part]
        if text:
            place = self._items[None]
            (part,) = self.response["output"][place]["content"]
            part["text"] += text
            events.append(self._delta("output_text", place, text, logprobs=self._told_now(part)))
        return events

    def _told_now(self, part: dict[str, Any]) -> list[dict[str, Any]]:
        told, self._logprobs = self._logprobs, []
        part["logprobs"] += told
        return told

    def _called(self, event: ev.ToolCall) -> list[bytes]:
        self._calls.append(event.in_message())
        place = len(self.response["output"])
        item = {"id": f"{self.name}-{place}", "type": "function_call", "status": "in_progress", "arguments": ""}
        item |= {"call_id": event.id, "name": event.name}
        self.response["output"].append(item)
        where = {"item_id": item["id"], "output_index": place}
        added = self._event("output_item.added", output_index=place, item=item)
        item |= {"arguments": event.arguments, "status": "completed"}
        return [
            added,
            self._event("function_call_arguments.delta", **where, delta=event.arguments),
            self._event("function_call_arguments.done", **where, name=event.name, arguments=event.arguments),
            self._event("output_item.done", output_index=place, item=item),
        ]

    def _last(self, live: LiveRun, event: ev.RunEnded) -> list[bytes]:
        events = [] if live.started else self._begin(live)  # cancelled in the queue
        if None not in self._items and not self._calls:
            events += self._said(event.answer or "")
        if None in self._items:
            events += self._end_message()
        is_whole = finish_reason(live, event) != "length"
        self.response["status"] = "completed" if is_whole else "incomplete"
        self.response["incomplete_details"] = None if is_whole else {"reason": "max_output_tokens"}
        self.response["usage"] = _usage(event.usage, sum(live.n_written.values()))
        return [*events, self._event(self.response["status"], response=self.response)]

    def _end_message(self) -> list[bytes]:
        place = self._items[None]
        item = self.response["output"][place]
        item["status"] = "completed"
        where = {"item_id": item["id"], "output_index": place, "content_index": 0}
        (part,) = item["content"]
        self._told_now(part)  # of tokens without a text
        return [
            self._event("output_text.done", **where, text=part["text"], logprobs=part["logprobs"]),
            self._event("content_part.done", **where, part=part),
            self._event("output_item.done", output_index=place, item=item),
        ]

    def _item(self, who: str | None, item: dict[str, Any]) -> bytes:
        place = self._items[who] = len(self.response["output"])
        self.response["output"].append({"id": f"{self.name}-{place}", **item})
        return self._event("output_item.added", output_index=place, item=self.response["output"][place])

    def _delta(self, kind: str, place: int, text: str, **more: Any) -> bytes:
        item = self.response["output"][place]["id"]
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
