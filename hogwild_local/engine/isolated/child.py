"""The child: model, caches and samplers, and calls on them that come through a pipe, one after the other."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from typing import Any, BinaryIO

from ... import errors
from ...options import SamplingParams
from ..cache import CacheBlock, SharedCache
from ..model import Model
from ..native import set_log_hook
from ..sampling import Sampler
from . import wire


class Child:
    """Answers requests (name, arguments, whether log lines are wanted) with (kind, value, log lines). The methods
    beginning with do_ are the requests; objects go by numbers."""

    def __init__(self, inbox: queue.SimpleQueue[Any], out: BinaryIO) -> None:
        self._inbox, self._out = inbox, out
        self._objects: dict[int, Any] = {}
        self._n_objects = 0
        self._log: list[tuple[int, str]] = []
        self._logits: dict[int, tuple[int, Any]] = {}  # by cache: number of the pass, its logits

    def run(self) -> None:
        while True:
            name, arguments, wants_log = self._inbox.get()
            set_log_hook(self._keep_line if wants_log else None)
            try:
                self._answer("ok", getattr(self, f"do_{name}")(*arguments))
            except errors.CacheFull as full:
                self._answer("full", (full.needed, full.free, str(full)))
            except errors.HogwildError as error:
                self._answer("error", (type(error).__name__, str(error)))
            except Exception as error:
                self._answer("error", ("HogwildError", f"in the engine's process: {type(error).__name__}: {error}"))

    def _answer(self, kind: str, value: Any) -> None:
        lines, self._log = self._log, []
        wire.send(self._out, wire.pack((kind, value, lines)))

    def _keep_line(self, level: int, text: str) -> None:
        self._log.append((level, text))

    def _add(self, thing: Any) -> int:
        self._n_objects += 1
        self._objects[self._n_objects] = thing
        return self._n_objects

    # -- model --

    def do_load(self, path: bytes, options: dict[str, Any], wants_progress: bool) -> tuple[int, dict[str, Any]]:
        model = Model(os.fsdecode(path), progress=self._progress if wants_progress else None, trust=True, **options)
        names = ("n_vocab", "n_ctx_train", "n_threads", "metadata", "description", "chat_template", "bos", "eos")
        facts = {name: getattr(model, name) for name in names}
        return self._add(model), {**facts, "placement": model._native.placement()}

    def _progress(self, part: float) -> bool:
        """The parent answers each report: whether to go on."""
        self._answer("progress", part)
        return bool(self._inbox.get())

    def do_tokenize(self, model: int, text: str | bytes, add_special: bool, parse_special: bool) -> list[int]:
        tokens: list[int] = self._objects[model].tokenize(text, add_special, parse_special)
        return tokens

    def do_detokenize(self, model: int, tokens: list[int], special: bool) -> str:
        return str(self._objects[model].detokenize(tokens, special))

    def do_token(self, model: int, token: int) -> tuple[bytes, str, bool]:
        known: Model = self._objects[model]
        return known.token_bytes(token), known.token_text(token), known.is_eog(token)

    # -- cache: each answer is what the call returns, and the cells that are free then --

    def do_cache(self, model: int, options: dict[str, Any]) -> tuple[int, int, int, int, list[Any]]:
        cache = SharedCache(self._objects[model], **options)
        return self._add(cache), cache.n_ctx, cache.n_batch, cache.n_free, cache._native.placement()

    def do_cache_number(self, cache: int, name: str) -> int:
        return int(getattr(self._objects[cache], name))

    def do_block(self, cache: int, name: str) -> int:
        return self._add(self._objects[cache].block(name))

    def do_block_len(self, block: int) -> int:
        return len(self._objects[block])

    def do_append(self, block: int, other: int) -> int:
        target: CacheBlock = self._objects[block]
        target.append(self._objects[other])
        return target._cache.n_free

    def do_truncate(self, block: int, n: int) -> int:
        target: CacheBlock = self._objects[block]
        target.truncate(n)
        return target._cache.n_free

    def do_free(self, block: int) -> int:
        target: CacheBlock = self._objects.pop(block)
        target.free()
        return target._cache.n_free

    def _views(self, views: list[Any]) -> list[Any]:
        return [([self._objects[block] for block in blocks], tokens) for blocks, tokens in views]

    def do_next_tokens(self, cache: int, views: list[Any], samplers: list[Any]) -> tuple[list[int | None], int]:
        shared: SharedCache = self._objects[cache]
        chosen = [None if sampler is None else self._objects[sampler] for sampler in samplers]
        return shared.next_tokens(self._views(views), chosen), shared.n_free

    def do_decode(self, cache: int, views: list[Any]) -> tuple[tuple[int, int], int]:
        shared: SharedCache = self._objects[cache]
        logits = shared.decode(self._views(views))
        number = self._logits.get(cache, (0, None))[0] + 1
        self._logits[cache] = (number, logits)
        return (number, len(views)), shared.n_free

    def do_close(self, thing: int) -> None:
        self._logits.pop(thing, None)
        self._objects.pop(thing).close()

    # -- logits stay here; they are sent where somebody looks at them --

    def _row(self, cache: int, number: int, row: int) -> Any:
        newest, logits = self._logits.get(cache, (0, None))
        if number != newest or logits is None:
            raise errors.InvalidArgument("these logits are gone: only those of the last decode are kept")
        return logits[row]

    def do_logits(self, cache: int, number: int, row: int) -> bytes:
        return bytes(self._row(cache, number, row).tobytes())

    def do_argmax(self, cache: int, number: int, row: int) -> int:
        return int(self._row(cache, number, row).argmax())

    # -- sampler --

    def do_sampler(self, model: int, params: dict[str, Any]) -> int:
        return self._add(Sampler(self._objects[model], SamplingParams(**params)))

    def do_sample(self, sampler: int, cache: int, number: int, row: int) -> int:
        return int(self._objects[sampler].sample(self._row(cache, number, row)))

    def do_sample_from(self, sampler: int, logits: bytes) -> int:
        import numpy as np

        return int(self._objects[sampler].sample(np.frombuffer(logits, dtype=np.float32)))

    def do_reset(self, sampler: int) -> None:
        self._objects[sampler].reset()


def _read(inbox: queue.SimpleQueue[Any], pipe: BinaryIO) -> None:
    """The pipe ends with the parent, and with it this process, whatever it is computing."""
    try:
        while True:
            inbox.put(wire.receive(pipe))
    except (EOFError, OSError):
        os._exit(0)


def _watch(parent: int) -> None:
    """A fork of the parent may hold the pipe open after it has died."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


def main(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the parent's to handle
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print must not come between the messages
    threading.Thread(target=_read, args=(inbox, os.fdopen(os.dup(0), "rb", buffering=0)), daemon=True).start()
    if os.name == "posix":
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    try:
        Child(inbox, out).run()
    except OSError:  # the parent is gone
        os._exit(0)
