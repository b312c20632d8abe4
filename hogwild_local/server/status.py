"""llama-server's routes that tell how it is: /health, /props, /slots, /metrics; and OpenAI's /v1/models."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from .. import __version__
from ..options import RunOptions, default_of
from .live import LiveRun
from .service import Service

MOST_EXAMPLES = 8
METRICS = (
    ("requests_total", "requests", "Requests that have ended."),
    ("failed_requests_total", "failed_requests", "Of them, those that ended by an error."),
    ("prompt_tokens_total", "prompt_tokens", "Tokens of prompts that were computed."),
    ("cached_tokens_total", "cached_tokens", "Tokens of prompts that were in the cache."),
    ("tokens_predicted_total", "predicted_tokens", "Tokens that workers and replies wrote."),
    ("passes_total", "passes", "Forward passes after the prompt, of all requests."),
)


class Status:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def health(self, request: Request) -> Response:
        """503 while the model is loaded."""
        assert self._service.hogwild  # or a Fault
        return JSONResponse({"status": "ok"})

    async def models(self, request: Request) -> Response:
        service, hogwild = self._service, self._service.hogwild
        meta = {"n_vocab": hogwild.model.n_vocab, "n_ctx_train": hogwild.model.n_ctx_train, "n_ctx": hogwild.n_ctx}
        model = {"id": service.name, "object": "model", "created": service.started, "owned_by": "hogwild-local"}
        return JSONResponse({"object": "list", "data": [{**model, "meta": meta}]})

    async def props(self, request: Request) -> Response:
        service, hogwild = self._service, self._service.hogwild
        return JSONResponse({
            "default_generation_settings": {"n_ctx": service.n_ctx, "params": _params(service)},
            "n_windowed": hogwild.n_windowed,
            "total_slots": service.options.parallel * _n_workers(service),
            "model_alias": service.name,
            "examples": hogwild.examples[:MOST_EXAMPLES],
            "can_be_spoken_to": bool(hogwild.prompts.said.text),
            "can_call_tools": service.can_call_tools,
            "chat_template": hogwild.model.chat_template,
            "build_info": f"hogwild-local {__version__}",
        })  # fmt: skip

    async def slots(self, request: Request) -> Response:
        """Each worker is one."""
        live = list(self._service.live.values())
        assert self._service.hogwild
        slots = [slot for run in live for slot in _slots_of(run)]
        return JSONResponse([{"id": number, **slot} for number, slot in enumerate(slots)])

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        service = self._service
        n_free, n_ctx = await asyncio.to_thread(lambda: (service.hogwild.n_free, service.hogwild.n_ctx))
        live = list(service.live.values())
        gauges = (
            ("requests_processing", "Requests that run.", sum(not run.is_waiting for run in live)),
            ("requests_deferred", "Requests that wait.", sum(run.is_waiting for run in live)),
            ("kv_cache_cells_free", "Cells that no request uses.", n_free),
            ("kv_cache_usage_ratio", "Part of the cells that requests use.", (n_ctx - n_free) / n_ctx),
            ("kv_cache_cells", "Cells that there are.", n_ctx),
            ("kv_cache_windowed_cells", "Cells of layers with a sliding window.", service.hogwild.n_windowed),
        )
        lines = []
        for name, of, text in METRICS:
            lines += _metric(name, "counter", text, service.totals[of])
        for name, of, text in (
            ("prompt_seconds_total", "prompt_ms", "Seconds that prompts took."),
            ("tokens_predicted_seconds_total", "predicted_ms", "Seconds that passes after the prompt took."),
        ):
            lines += _metric(name, "counter", text, service.totals[of] / 1e3)
        for name, text, value in gauges:
            lines += _metric(name, "gauge", text, value)
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


def _metric(name: str, kind: str, text: str, value: float) -> list[str]:
    return [f"# HELP hogwild:{name} {text}", f"# TYPE hogwild:{name} {kind}", f"hogwild:{name} {value}"]


def _n_workers(service: Service) -> int:
    workers = service.defaults.get("workers", default_of(RunOptions, "workers"))
    return workers if isinstance(workers, int) else len(workers)


def _params(service: Service) -> dict[str, Any]:
    sampling = service.hogwild.sampling
    names = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
    return {**{name: getattr(sampling, name) for name in names}, "workers": _n_workers(service)}


def _slots_of(live: LiveRun) -> list[dict[str, Any]]:
    if live.started is None:
        return []
    return [
        {
            "request": live.name,
            "worker": worker,
            "is_processing": worker not in live.finished,
            "n_decoded": live.n_written[worker],
            "n_prompt_tokens": live.started.prompt_tokens,
            "n_prompt_tokens_processed": live.prompt.done if live.prompt else 0,
        }
        for worker in live.n_written
    ]
