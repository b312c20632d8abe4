"""A server in a thread of this process, on a free port."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from fakes import TINY_STYLE, FakeEngine

from hogwild_local import Hogwild, PromptStyle
from hogwild_local.engine.default_model import default_model_path
from hogwild_local.options import ServerOptions
from hogwild_local.server.listen import Listener
from hogwild_local.server.service import Service

SHEET = "a=27+58\nb=a-13^40\nc=11+22\nd=45-12+30\n"
ASKED = {"messages": [{"role": "user", "content": SHEET}], "seed": 1}
CHAT = "/v1/chat/completions"


def embedded() -> Hogwild:
    return Hogwild(default_model_path(), trust=True)


def paced(seconds: float = 0.005, style: PromptStyle = TINY_STYLE) -> Callable[[], Hogwild]:
    """Loads a fake model, whose workers write x, and whose passes take so long."""

    def load() -> Hogwild:
        hogwild = Hogwild("m.gguf", prompts=style, engine=FakeEngine(filler=ord("x")).engine)
        hogwild._cache.on_decode = lambda cache: time.sleep(seconds)
        return hogwild

    return load


class Served:
    """What tests hold of a server."""

    def __init__(self, service: Service, listener: Listener) -> None:
        self.service, self.address = service, listener.address
        self.listener, self.application = listener, listener.application
        self.client = httpx.Client(base_url=listener.address, timeout=30.0)

    def post(self, path: str, body: dict[str, Any], **more: Any) -> httpx.Response:
        return self.client.post(path, json=body, **more)

    def stop(self) -> None:
        self.listener.stop()

    def idle(self) -> None:
        """Waits until no run is left, and no cell used."""
        until(lambda: not self.service.live)
        hogwild = self.service.hogwild
        assert hogwild.n_free == hogwild.n_ctx


def until(what: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@contextlib.contextmanager
def served(
    load: Callable[[], Hogwild] = embedded, reasoning: str = "separate", waits: bool = True, **options: Any
) -> Iterator[Served]:
    """waits: for the model."""
    options = {"data": "", **options}
    service = Service(load, ServerOptions(port=0, **options), {}, "default")
    listener = Listener(service, reasoning, None, None)
    thread = threading.Thread(target=listener.serve)
    thread.start()
    made = Served(service, listener)
    try:
        if waits:
            until(lambda: made.client.get("/health").status_code == 200)
        yield made
    finally:
        made.client.close()
        listener.stop()
        thread.join(30)
        assert not thread.is_alive()


def events_of(response: httpx.Response) -> Iterator[tuple[int, str, str]]:
    """Number, name and data of each server-sent event."""
    number, name = 0, ""
    for line in response.iter_lines():
        field, _, value = line.partition(": ")
        if field == "id":
            number = int(value)
        elif field == "event":
            name = value
        elif field == "data":
            yield number, name, value
            name = ""


def noted_prompts(server: Served) -> list[Any]:
    """What its Hogwild is asked from now on, as it comes."""
    prompts: list[Any] = []
    stream = server.service.hogwild.stream

    def noted(prompt: Any, **options: Any) -> Any:
        prompts.append(prompt)
        return stream(prompt, **options)

    server.service.hogwild.stream = noted  # type: ignore[method-assign]
    return prompts
