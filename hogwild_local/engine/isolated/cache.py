"""A SharedCache and its blocks as they look from outside of the process that holds them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Self

from ...errors import Closed, EngineDied, InvalidArgument
from ..checks import token_list
from ..devices import devices_of
from ..protocols import View
from . import wire
from .logits import RemoteLogits
from .model import RemoteModel
from .sampler import RemoteSampler


class RemoteBlock:
    """A CacheBlock. Its length is known here: asking for it costs no message."""

    def __init__(self, cache: RemoteCache, name: str) -> None:
        self.name = name
        self.cache = cache
        self._id: int | None = cache.call("block", name)
        self._len: int | None = 0  # None: not known, since a call was interrupted

    def __len__(self) -> int:
        self.cache.check()
        if self._len is None:
            self._len = int(self.cache.call_process("block_len", self.use()))
        return self._len

    def __bool__(self) -> bool:
        return True  # an empty block is a block

    def append(self, other: RemoteBlock) -> None:
        theirs, both = self.cache.id_of(other), [self._len, other._len]
        with self.cache.changing(self, other):
            self.cache.n_free_known = self.cache.call_process("append", self.use(), theirs)
        if None not in both:
            self._len, other._len = sum(n or 0 for n in both), 0

    def clear(self) -> None:
        self.truncate(0)

    def truncate(self, n: int) -> None:
        with self.cache.changing(self):
            self.cache.n_free_known = self.cache.call_process("truncate", self.use(), n)
        self._len = n

    def free(self) -> None:
        """Of a process that has died, there is nothing left to free."""
        block, self._id = self.use(), None
        with contextlib.suppress(EngineDied), self.cache.changing(self):
            self.cache.n_free_known = self.cache.call_process("free", block)

    def use(self) -> int:
        if self._id is None:
            raise InvalidArgument(f"block {self.name!r} was freed")
        return self._id

    def fed(self, n: int) -> None:
        self._len = None if self._len is None else self._len + n

    def forget_len(self) -> None:
        self._len = None

    def __repr__(self) -> str:
        return f"RemoteBlock({self.name!r})"


class RemoteCache:
    """A SharedCache of a RemoteModel. Takes what SharedCache takes; raises what it raises, and EngineDied."""

    def __init__(self, model: RemoteModel, **options: Any) -> None:
        if not isinstance(model, RemoteModel):
            raise InvalidArgument(f"model must be a RemoteModel, not {model!r}")
        self._model, self.process, self._closed = model, model._process, False
        arguments = {name: wire.plain(value) for name, value in options.items()}
        self._id, self.n_ctx, self.n_batch, n_free, placement = model._call("cache", arguments)
        self.n_free_known: int | None = n_free
        self.devices = devices_of((), placement)

    @property
    def n_free(self) -> int:
        self.check()
        if self.n_free_known is None:
            self.n_free_known = int(self.call("cache_number", "n_free"))
        return self.n_free_known

    @property
    def n_bytes(self) -> int:
        return int(self.call("cache_number", "n_bytes"))

    @property
    def n_moved(self) -> int:
        return int(self.call("cache_number", "n_moved"))

    @property
    def n_mirrored(self) -> int:
        """As SharedCache.n_mirrored."""
        return int(self.call("cache_number", "n_mirrored"))

    @property
    def closed(self) -> bool:
        return self._closed or self.process.closed

    def block(self, name: str = "") -> RemoteBlock:
        return RemoteBlock(self, name)

    def decode(self, views: Sequence[View]) -> RemoteLogits:
        number, n_rows = self._feed("decode", views)
        return RemoteLogits(self, number, n_rows)

    def next_tokens(self, views: Sequence[View], samplers: Sequence[RemoteSampler | None]) -> list[int | None]:
        """One message, where decode() and each sample() are one each."""
        ids = [None if sampler is None else self._id_of_sampler(sampler) for sampler in samplers]
        tokens: list[int | None] = self._feed("next_tokens", views, ids)
        return tokens

    def _id_of_sampler(self, sampler: RemoteSampler) -> int:
        if not isinstance(sampler, RemoteSampler):
            raise InvalidArgument(f"{sampler!r} is not a sampler of an engine in a process of its own")
        return sampler.id_in(self.process)

    def _feed(self, request: str, views: Sequence[View], *arguments: Any) -> Any:
        """What the request on these views returns. It tells the number of free cells too."""
        given = [(list(blocks), token_list(tokens, self._model.n_vocab)) for blocks, tokens in views]
        ids = [([self.id_of(block) for block in blocks], tokens) for blocks, tokens in given]
        owns = [blocks[-1] for blocks, _ in given if blocks]
        with self.changing(*owns):
            result, self.n_free_known = self.call(request, ids, *arguments)
        for own, (_, tokens) in zip(owns, given, strict=True):
            own.fed(len(tokens))
        return result

    def close(self) -> None:
        if not self.closed:
            self._closed = True
            with contextlib.suppress(EngineDied, Closed):
                self.process.call("cache", "close", self._id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def check(self) -> None:
        """Raises Closed, EngineDied."""
        if self._closed:
            raise Closed("this cache was closed")
        self.process.check("cache")

    def call(self, name: str, *arguments: Any) -> Any:
        return self.call_process(name, self._id, *arguments)

    def call_process(self, name: str, *arguments: Any) -> Any:
        self.check()
        return self.process.call("cache", name, *arguments)

    @contextlib.contextmanager
    def changing(self, *blocks: RemoteBlock) -> Any:
        """What is known of these blocks is not known any more where a call fails, or is interrupted and goes on."""
        try:
            yield
        except BaseException:
            self.n_free_known = None
            for block in blocks:
                block.forget_len()
            raise

    def id_of(self, block: RemoteBlock) -> int:
        if not isinstance(block, RemoteBlock):
            raise InvalidArgument(f"{block!r} is not a block: make one with SharedCache.block()")
        if block.cache is not self:
            raise InvalidArgument(f"block {block.name!r} is of another cache")
        return block.use()
