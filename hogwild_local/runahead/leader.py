"""The last rank: it stands where the native module does, so that all above it exists once. A long prompt that is
decoded in one of its caches is cut, and computed by all ranks."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..checks import whole
from ..engine import native
from ..engine.devices import PlacementRow
from ..engine.log import tell as tell_log
from ..engine.views import Decoded, DecodeView
from ..engine.wire import error_of
from ..errors import Cancelled, HogwildError, ModelError, RankLost
from ..options import MOST_WINDOWS, OF_CACHE
from .block_bytes import cells_of, origin_of
from .chunk import Exchange, GivenUp, compute
from .costs import Costs, Link, as_plain
from .cutter import Cutter
from .helper import computed_by, fingerprint
from .kept import Kept
from .messages import hear, tell
from .partition import Partition, checked, even
from .place import n_on_machine, own_settings
from .probe import probe_all
from .routes import Method, Prompt, checked_method
from .slow_link import Limits, limited
from .transport import Bytes, PassTrace, Transport, as_rows, as_trace

LEAST_CHUNK = 16
"""Tokens of a rank: shorter prompts are not worth the messages."""
WARNING = 3
"""A log line's level, in ggml's count."""


N_CLOCK_READINGS = 5


class Group:
    """The other ranks, as the last one sees them."""

    def __init__(self, transport: Transport, cut: Callable[[int, int], Partition] | None = None) -> None:
        """cut: tokens and ranks to a partition; None: each cache has a Cutter."""
        self.transport, self.cut = transport, cut
        self.helpers = range(transport.size - 1)
        self.traces: list[PassTrace] = []
        """Of the last prompt, rank after rank, in this rank's time."""
        self.limits: Limits | None = None
        self._ahead_s = [0.0 for _ in self.helpers]
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self.is_ended = False

    def new_number(self) -> int:
        return next(self._numbers)

    @contextlib.contextmanager
    def watched(self, watch: Callable[[list[int]], object] | None) -> Iterator[None]:
        """Lets watch be called with the layers that the ranks reach."""
        self.transport.watch = watch
        try:
            yield
        finally:
            self.transport.watch = None

    def tell(self, *request: Any) -> None:
        for rank in self.helpers:
            tell(self.transport, rank, request)

    @contextlib.contextmanager
    def asked(self, *request: Any) -> Iterator[list[Any]]:
        """Lets all do it at the same time, this rank within: afterwards the list has the others' answers. Raises what
        one of them raised, and RankLost."""
        answers: list[Any] = []
        with self.in_step():
            self.tell(*request)
            try:
                yield answers
            except HogwildError:
                self.answers()
                raise
            answers += self.answers()

    @contextlib.contextmanager
    def in_step(self) -> Iterator[None]:
        """One thread at a time says something, and hears the answers. Where that breaks off (Ctrl+C), the next answer
        would be one to an older question: the ranks are of no use to each other any more."""
        with self._lock:
            try:
                yield
            except HogwildError:
                raise
            except BaseException as error:
                self.transport.fail(Cancelled(f"the last rank was interrupted: {error!r}"))
                raise

    def answers(self) -> list[Any]:
        """Of all of them. Raises what one of them raised, naming it."""
        answers = [hear(self.transport, rank) for rank in self.helpers]
        for rank, (kind, value) in enumerate(answers):
            if kind == "error":
                name, text = value
                raise error_of(name, f"rank {rank}: {text}")
        return [value for _, value in answers]

    def limit(self, limits: Limits | None) -> None:
        """Lets keys and values go between ranks as over links with these limits; None: as they are."""
        with self.asked("limit", None if limits is None else tuple(limits)):
            self.limits = limits

    def compare_clocks(self) -> None:
        """A rank on another machine has another clock: it is read in the middle of the quickest of a few answers."""
        asked = []
        for _ in range(N_CLOCK_READINGS):
            begin_s = time.monotonic()
            with self.asked("clock") as theirs:
                pass
            end_s = time.monotonic()
            asked.append((end_s - begin_s, [their - (begin_s + end_s) / 2 for their in theirs]))
        took_s, ahead_s = min(asked, default=(0.0, self._ahead_s))
        # One that cannot be told from ours is ours.
        self._ahead_s = [ahead if abs(ahead) > took_s / 2 else 0.0 for ahead in ahead_s]

    def in_our_time(self, traces: Sequence[PassTrace]) -> list[PassTrace]:
        """The helpers' traces, rank after rank."""
        return [trace.later_by(-ahead) for trace, ahead in zip(traces, self._ahead_s, strict=True)]

    def end(self) -> None:
        """May be called twice."""
        if not self.is_ended:
            self.is_ended = True
            with contextlib.suppress(HogwildError):  # those that are lost need not be told
                for rank in self.helpers:
                    tell(self.transport, rank, None)
            self.transport.end()


class Leader:
    """The native module of the last rank."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def NativeModel(self, settings: dict[str, Any], progress: Callable[[float], object] | None = None) -> LeaderModel:
        return LeaderModel(self._group, settings, progress)

    def rpc_load(self, path: bytes | None) -> None:
        with self._group.asked("rpc_load", path):
            native.rpc_load(path)

    def end(self) -> None:
        """Lets the other ranks end. May be called twice."""
        self._group.end()

    def __getattr__(self, name: str) -> Any:
        return getattr(native, name)


class LeaderModel(native.NativeModel):
    """Loaded by all ranks at the same time. The ranks end with it."""

    def __init__(
        self, group: Group, settings: dict[str, Any], progress: Callable[[float], object] | None = None
    ) -> None:
        self._group, self._number = group, group.new_number()
        transport = group.transport
        with group.asked("model", self._number, settings) as theirs:
            own = own_settings(settings, transport.places, transport.rank, native.gpus)
            super().__init__(own, progress)
        self.computed_by = computed_by(self, own)
        group.compare_clocks()
        hosts = [place.host for place in transport.places]
        self._placements = list(zip(hosts, [*theirs, self.placement()], strict=True))

    def placements(self) -> list[tuple[str, list[PlacementRow]]]:
        """Of each rank: its host, and what of the model lies where on it."""
        return self._placements

    def room(self, share: float, *arguments: Any) -> int:
        """Each rank has a cache of one size: the rank with the least room decides. Ranks of one machine share it."""
        transport = self._group.transport
        arguments = tuple(with_all_windows(arguments))
        with self._group.asked("room", self._number, share, list(arguments)) as theirs:
            own = super().room(share / n_on_machine(transport.places, transport.rank), *arguments)
        return int(min([own, *theirs]))

    def cache(self, *arguments: Any) -> LeaderCache:
        return LeaderCache(self._group, self, self.number("n_vocab"), with_all_windows(arguments))

    def close(self) -> None:
        """May be called twice."""
        super().close()
        self._group.end()


def with_all_windows(arguments: Sequence[Any]) -> list[Any]:
    """Of a cache: a rank is sent the cells of all tokens before its chunk, in each layer."""
    names = ("n_ctx", *OF_CACHE)
    return [MOST_WINDOWS if name == "n_windows" else given for name, given in zip(names, arguments, strict=True)]


class _Known(NamedTuple):
    """What a view has already: lengths and tokens of its blocks, and their cells by layer; nothing: all are empty."""

    lens: list[int]
    tokens: list[int]
    cells: list[Bytes]


class LeaderCache(native.NativeCache):
    """A cache of the last rank, of whose size every rank has one. progress: called while a prompt is computed, with the
    layers that the ranks have reached, and how many there are."""

    progress: Callable[[tuple[list[int], int]], object] | None = None

    def __init__(self, group: Group, model: LeaderModel, n_vocab: int, arguments: Sequence[Any]) -> None:
        self._group, self._number = group, group.new_number()
        self._method: Method = "runahead"
        self._forced: Partition = ()
        try:
            with group.asked("cache", self._number, model._number, list(arguments)) as theirs:
                super().__init__(model, n_vocab, *arguments)
            own = fingerprint(self)
            for rank, (their, _) in enumerate(theirs):
                if their != own:
                    raise ModelError(f"rank {rank} has another model than the last rank: {_difference(their, own)}")
        except BaseException:
            self._free_theirs()
            raise
        self._n_batch = int(arguments[1])
        self._computed_by = [*(by for _, by in theirs), model.computed_by]
        self._of = {"model": own, "attention": arguments[-1], "ranks": self._computed_by, "hosts": _apart(group)}
        self._cutter = Cutter(group.transport.size, Kept(self._of, _warn), self._probe)

    def close(self) -> None:
        """May be called twice."""
        super().close()
        self._free_theirs()

    def _free_theirs(self) -> None:
        if not self._group.is_ended:  # else they have none any more
            with contextlib.suppress(HogwildError), self._group.asked("free", self._number):
                pass

    def decode(
        self, views: Sequence[DecodeView], progress: Callable[[tuple[list[int], int]], object] | None = None
    ) -> list[Decoded]:
        """A single view with many tokens is computed by all ranks. Raises also what one of them raises, RankLost."""
        partition = self._partition(views)
        known = self._known(views[0].blocks) if partition else None
        if partition is None or known is None:
            return super().decode(views)
        report, n_layers = progress or self.progress, self.n_layers()
        watch = None if report is None else lambda layers: report((layers, n_layers))
        with self._group.watched(watch):
            return [self._decode_ahead(views[0], partition, known)]

    def traces(self) -> list[tuple[Any, ...]]:
        """What the ranks did for the last prompt, as plain data (see as_trace); none: it was not for several."""
        return [as_rows(trace) for trace in self._group.traces]

    def method(self, name: Method) -> None:
        """How long prompts are computed from now on. Raises InvalidArgument."""
        self._method = checked_method(name)

    def group(self) -> dict[str, Any]:
        """What measurements of these ranks are of, as plain data."""
        return self._of

    def cut_as(self, partition: Sequence[int] | None) -> None:
        """Cuts prompts of so many tokens so; None: as it finds best. Raises InvalidArgument."""
        forced = tuple(whole(n, "a chunk of a partition", 1) for n in partition or ())
        self._forced = checked(forced, sum(forced), self._group.transport.size) if forced else ()

    def limit(self, limits: Sequence[float] | None) -> None:
        """Lets ranks be connected by slower links from now on: see Limits; None: by those there are."""
        given = None if limits is None else Limits(*limits)  # type: ignore[arg-type]
        self._group.limit(given)
        self._cutter.limit(None if given is None else Link(given.latency_s, given.bytes_per_s))

    def probed(self) -> list[Any] | None:
        """The costs of prompts, measured now, as plain data; None: too few cells are free."""
        costs = self._cutter.probed()
        return None if costs is None else as_plain(costs)

    def _probe(self) -> Costs | None:
        return probe_all(self._group, self, self._number, self._n_batch, self._computed_by)

    def _partition(self, views: Sequence[DecodeView]) -> Partition | None:
        """None: it is not for several ranks."""
        view, n_ranks = views[0], self._group.transport.size
        n = len(view.tokens)
        if self._method == "alone" or len(views) > 1 or n_ranks < 2 or n < LEAST_CHUNK * n_ranks:
            return None
        if view.sampler is not None:
            return None
        partition = checked(self._cut(n, view.blocks), n, n_ranks)
        return partition if view.n_outputs <= partition[-1] else None

    def _cut(self, n_tokens: int, blocks: Sequence[int]) -> Partition:
        n_ranks = self._group.transport.size
        if self._method == "all-gather":
            return even(n_tokens, n_ranks)
        if n_tokens == sum(self._forced):
            return self._forced
        if self._group.cut is not None:
            return self._group.cut(n_tokens, n_ranks)
        lens = self.blocks()
        return self._cutter.cut(n_tokens, sum(lens.get(block, 0) for block in blocks))

    def _known(self, blocks: Sequence[int]) -> _Known | None:
        """None: a block does not stand where its keys are rotated to, so that the others could not have it so."""
        lens = self.blocks()
        known = _Known([], [], [])
        cells: list[list[Bytes]] = []
        begin = 0
        for block in blocks:
            if n := lens.get(block, 0):
                data = self.read(block)
                if origin_of(data) != begin:
                    return None
                known.lens.append(n)
                known.tokens.extend(self.tokens(block))
                layers = range(self.n_layers())
                sizes, windowed = [self.layer_bytes(i, n) for i in layers], [self.is_windowed(i) for i in layers]
                cells.append(cells_of(np.frombuffer(data, dtype=np.uint8), sizes, windowed))
            begin += n
        known.cells.extend(np.concatenate(of_blocks) for of_blocks in zip(*cells, strict=True))
        return known

    def _decode_ahead(self, view: DecodeView, partition: Partition, known: _Known) -> Decoded:
        group = self._group
        number = group.new_number()
        prompt = Prompt([*known.tokens, *view.tokens], known.lens, partition, self._method, number)
        with group.in_step(), limited(group.transport, group.limits) as links:
            exchange = Exchange(self, links, prompt)
            try:
                group.tell(
                    "prefill", self._number, list(prompt.tokens), known.lens, list(partition), self._method, number
                )
                outcome = compute(self, exchange, view, known.cells)
                theirs = group.answers()
            except HogwildError as error:
                if not isinstance(error, RankLost):
                    group.transport.fail(error)
                raise
        group.traces = []
        if isinstance(outcome, GivenUp):
            raise _reason(outcome.why, {rank: why for rank, (is_done, why) in enumerate(theirs) if not is_done})
        decoded, trace = outcome
        if all(is_done for is_done, _ in theirs):  # a rank may give up when all that others need has left
            group.traces = [*group.in_our_time([as_trace(rows) for _, rows in theirs]), trace]
        return decoded


def _reason(own: BaseException, theirs: Mapping[int, tuple[str, str]]) -> BaseException:
    """Why a prompt was given up: who is cancelled may be so because of another rank's error. theirs: of each rank."""
    if isinstance(own, Cancelled):
        for rank, (name, text) in theirs.items():
            if name != Cancelled.__name__:
                return error_of(name, f"rank {rank}: {text}")
    return own


def _warn(text: str) -> None:
    tell_log(WARNING, f"hogwild: {text}\n")


def _apart(group: Group) -> list[str]:
    """Where the ranks are, if that is not one machine: links are those between these."""
    places = group.transport.places
    return [place.host for place in places] if len({place.machine for place in places}) > 1 else []


def _difference(theirs: str, ours: str) -> str:
    pairs = zip(theirs.splitlines(), ours.splitlines(), strict=False)
    return ", ".join(f"{their} there, {our} here" for their, our in pairs if their != our) or "other fields"
