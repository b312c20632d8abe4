"""The fields of OpenAI's requests, llama-server's among them, as options of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import InvalidArgument
from ..options import SamplingParams, Worker, as_worker, options_of
from .body import Body
from .faults import Fault, fault_of

MOST_STOPS = 32
OF_FORM = ("response_format", "tools", "tool_choice", "parallel_tool_calls")
OF_RUN = ("workers", "layout", "max_passes", "ends", "thinking", "date", "cache_prompt", *OF_FORM)
"""Options that are called as in RunOptions."""
OF_SAMPLING = ({*options_of(SamplingParams)} | {"logit_bias"}) - {"seed"}
"""Those that are called as in SamplingParams. A seed is the run's."""


def run_options(body: Body, sampling: SamplingParams) -> dict[str, Any]:
    """sampling: what the server does where a request says nothing. Raises Fault."""
    if body.get("n", 1) != 1:
        raise Fault(400, "n must be 1: several workers make one reply", "n")
    options = {name: body[name] for name in OF_RUN if name in body}
    if "workers" in options:
        options["workers"] = workers_of(options["workers"], sampling)
    elif asked := re.search(r"@(\d{1,4})$", body.text("model")):
        options["workers"] = int(asked[1])
    for name in ("max_completion_tokens", "max_tokens", "n_predict"):
        if body.get(name, -1) != -1:  # llama-server's word for no limit
            options["reply_tokens"] = body[name]
            break
    if body.get("seed", -1) != -1:
        options["seed"] = body["seed"]
    if (logprobs := _logprobs(body)) is not None:
        options["logprobs"] = logprobs
    if stops := _stops(body.get("stop", ())):
        options["stop"] = stops
    if "enable_thinking" in (kwargs := body.object("chat_template_kwargs")):
        options["thinking"] = kwargs["enable_thinking"]
    if effort := body.text("reasoning_effort") or kwargs.text("reasoning_effort"):
        options |= {"thinking": False} if effort == "none" else {"reasoning_effort": effort}
    options["sampling"] = _sampling(body, sampling)
    return options


def workers_of(workers: Any, sampling: SamplingParams) -> Any:
    """A number, or a list of names and of objects of a Worker's fields. Raises Fault."""
    try:
        return [worker_of(worker, sampling) for worker in workers] if isinstance(workers, list | tuple) else workers
    except Fault as fault:
        raise Fault(400, str(fault), "workers") from fault


def worker_of(given: Any, sampling: SamplingParams) -> Worker:
    """Of a name, or an object of name, role, stop, grammar, and sampling of its own. Raises Fault."""
    try:
        if not isinstance(given, dict):
            return as_worker(given)
        body = Body(given)
        own = _sampling(body, sampling) if any(name in body for name in OF_SAMPLING) else None
        stops = _stops(body.get("stop", ()))
        return Worker(body.get("name"), body.get("role"), own, stops, body.get("grammar"))  # type: ignore[arg-type]  # it checks
    except InvalidArgument as error:
        raise fault_of(error) from error


def prompt_of(body: Body, field: str = "prompt") -> list[Mapping[str, Any]]:
    """A text, as what a user says. Raises Fault."""
    text = body.text(field)
    if not text.strip():
        raise Fault(400, f"{field} must be a text, and not empty", field)
    return [{"role": "user", "content": text}]


def messages_of(body: Body) -> list[Mapping[str, Any]]:
    """Raises Fault."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Fault(400, "messages must be a list of messages, and not empty", "messages")
    return messages


def _stops(stop: object, field: str = "stop") -> Sequence[str]:
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list | tuple) or not all(isinstance(each, str) for each in stops):
        raise Fault(400, "stop must be a text or a list of texts", field)
    if len(stops) > MOST_STOPS:
        raise Fault(400, f"stop: at most {MOST_STOPS} texts, not {len(stops)}", field)
    return stops


def _logprobs(body: Body) -> Any:
    """OpenAI's flag beside a number, or the number alone, as the older completions have it."""
    asked = body.get("logprobs")
    if asked is True:
        return body.get("top_logprobs", 0)
    if "top_logprobs" in body:
        raise Fault(400, "top_logprobs needs logprobs: true", "top_logprobs")
    return None if asked is False else asked


def _sampling(body: Body, default: SamplingParams) -> SamplingParams:
    given = {name: body[name] for name in OF_SAMPLING if name in body}
    if "logit_bias" in body:
        given["logit_bias"] = _bias(body["logit_bias"])
    try:
        return replace(default, **given)
    except InvalidArgument as error:
        raise fault_of(error) from error


def _bias(bias: object) -> dict[int, float]:
    """OpenAI's object of token numbers, or llama-server's list of pairs."""
    try:
        pairs = bias.items() if isinstance(bias, dict) else [(token, value) for token, value in bias]  # type: ignore[attr-defined]
        return {int(token): float("-inf") if value is False else float(value) for token, value in pairs}
    except (TypeError, ValueError):
        raise Fault(400, "logit_bias must map numbers of tokens to numbers", "logit_bias") from None
