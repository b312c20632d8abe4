"""One prompt prefilled by several ranks (KV-Runahead), in threads of one process: what the last rank holds afterwards is
what it would hold had it fed the prompt alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from mla import write_mla
from ranks import QueueTransport, Wires, in_threads
from test_blocks import Load, Paths, probe, tokens_of

from hogwild_local import Model, SharedCache
from hogwild_local.engine import native
from hogwild_local.engine.views import Chunk, DecodeView
from hogwild_local.errors import ComputeError, HogwildError, InvalidArgument, ModelError, RankLost
from hogwild_local.runahead.helper import serve
from hogwild_local.runahead.leader import Group, Leader
from hogwild_local.runahead.partition import Partition, checked, even

F32 = {"type_k": "f32", "type_v": "f32"}


@contextmanager
def ranks(
    path: Path | Sequence[Path], n: int, cut: Callable[[int, int], Partition] = even, lose: tuple[int, int] | None = None
) -> Iterator[tuple[Model, Group]]:
    """The model of the last of n ranks, the others in threads. path: of each rank's model, or of all."""
    paths = [path] * n if isinstance(path, Path) else path
    wires = Wires(n, lose)
    errors: list[BaseException] = []

    class Native:
        """The native module of a rank, with a model file of its own."""

        def __init__(self, rank: int) -> None:
            self.path = bytes(paths[rank])

        def NativeModel(self, settings: dict[str, object]) -> native.NativeModel:
            return native.NativeModel({**settings, "path": self.path})

    def rank(index: int) -> None:
        try:
            serve(wires.transport(index), Native(index))
        except HogwildError as error:
            errors.append(error)

    threads = [threading.Thread(target=rank, args=(index,), daemon=True) for index in range(n - 1)]
    for thread in threads:
        thread.start()
    group = Group(wires.transport(n - 1), cut)
    try:
        with Model(paths[-1], n_threads=1, native=Leader(group)) as model:
            yield model, group
    finally:
        group.end()
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)


def cut(*chunks: int) -> Callable[[int, int], Partition]:
    return lambda n_tokens, n_ranks: chunks


def alone(model: Model, tokens: Sequence[int], **options: object) -> list[np.ndarray]:
    """What a single process says after the prompt, and after a token that sees it."""
    with SharedCache(model, n_ctx=400, n_batch=400, **options) as cache:
        block = cache.block()
        return [cache.decode([([block], tokens)])[0], probe(cache, block)]


@pytest.mark.parametrize("chunks", [(150,), (75, 75), (1, 149), (149, 1), (60, 50, 40), (1, 1, 148), (40, 40, 40, 30)])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "qwen3-yarn"])
def test_logits_are_those_of_a_single_process(name: str, chunks: Partition, tiny_path: Paths, single: Load) -> None:
    tokens = tokens_of(single(name), 150)
    wanted = alone(single(name), tokens, **F32)
    with ranks(tiny_path(name), len(chunks), cut(*chunks)) as (model, group):
        with SharedCache(model, n_ctx=400, n_batch=400, **F32) as cache:
            block = cache.block()
            logits = cache.decode([([block], tokens)])[0]
            assert [trace.n_tokens for trace in group.traces] == (list(chunks) if len(chunks) > 1 else [])
            assert np.abs(logits - wanted[0]).max() <= 1e-3
            assert np.abs(probe(cache, block) - wanted[1]).max() <= 1e-3
            assert block.tokens == tokens
            cache.check()
