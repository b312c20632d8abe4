"""Short measurements, of which the costs of a prompt are made: each rank computes small chunks alone, behind cells that
hold nothing, and then messages go once around."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from ..engine.views import Chunk, DecodeView
from .costs import Costs, Link, Probe, RankCosts, fit
from .transport import Bytes, Links

if TYPE_CHECKING:
    from ..engine.native import NativeCache
    from .leader import Group

PROBED = 32
"""Tokens of a measured chunk. On a CPU, a pass of so many costs as much a token as one of thousands, but for attention;
on what is faster, one that takes LEAST_S does."""
LEAST_S = 0.1
WARM = 8
FAR = 2048
"""Cells before the second one; an eighth of that will do where no more are free."""
TAG_LINK = 32005
N_MESSAGES = 3
Clock = Callable[[], float]


def probe_all(group: Group, cache: NativeCache, number: int, n_batch: int, computed_by: Sequence[str]) -> Costs | None:
    """What the last rank has all do. number: of the cache in the others; computed_by: what each rank computes with,
    for what differs between equal ones is chance. None: too few cells are free. Raises what a rank raises."""
    n_free = cache.number("n_free")
    n_before = min(FAR, n_free - 2 * PROBED)
    n_most = min(n_batch, n_free - n_before)
    if n_before < FAR // 8 or n_most < PROBED:
        return None
    with group.asked("probe", number, n_before, n_most) as ranks:
        own = probe_rank(cache, n_before, n_most)
    layers = [cache.layer_bytes(layer, 1) for layer in range(cache.n_layers())]
    with group.asked("link", FAR * max(layers)) as links:
        link = probe_link(group.transport, FAR * max(layers))
    all_ranks, all_links = [*(RankCosts(*row) for row in ranks), own], [*(Link(*row) for row in links), link]
    return Costs(_alike(all_ranks, computed_by), all_links, layers)


def _alike(ranks: Sequence[RankCosts], computed_by: Sequence[str]) -> list[RankCosts]:
    """Equal ones get the median of each number."""
    of: dict[str, list[RankCosts]] = {}
    for by, costs in zip(computed_by, ranks, strict=True):
        of.setdefault(by, []).append(costs)
    return [RankCosts(*map(statistics.median, zip(*of[by], strict=True))) for by in computed_by]


def probe_rank(cache: NativeCache, n_before: int, n_most: int, clock: Clock = time.monotonic) -> RankCosts:
    """n_before: cells that a second chunk stands behind; n_most: tokens of a chunk, that fit too. Raises what
    hw_decode_chunk raises; the cache is as before."""
    seconds = partial(seconds_of, cache, clock=clock)
    seconds(WARM, 0)  # weights may lie on the disk yet
    n = PROBED
    near = [seconds(n, 0)]
    while sum(near[0]) < LEAST_S and 4 * n <= n_most:
        n *= 4
        near = [seconds(n, 0)]
    far = [seconds(n, n_before)]
    near.append(seconds(n, 0))
    far.append(seconds(n, n_before))
    return fit(_quietest(near, n, 0), _quietest(far, n, n_before))


def _quietest(passes: Sequence[Sequence[float]], n: int, n_before: int) -> Probe:
    """Of each part the shortest time: what other processes take makes it only longer."""
    first_s, *layers, last_s = map(min, zip(*passes, strict=True))
    return Probe(n, n_before, first_s, statistics.mean(layers or [last_s]), last_s)


def seconds_of(cache: NativeCache, n: int, n_before: int, clock: Clock = time.monotonic) -> list[float]:
    """A chunk of n tokens behind cells that hold nothing: seconds until the first layer is stored, from each layer's to
    the next one's, and until the end."""
    n_layers, times = cache.n_layers(), list[float]()

    def note(layer: int) -> None:
        times.append(clock())

    size = max(cache.layer_bytes(layer, n + n_before) for layer in range(n_layers))
    # The same memory for all layers: nobody reads what is in it.
    chunk = Chunk([n_before] if n_before else [], [_memory(size)] * n_layers, note)
    block = cache.new_block()
    try:
        note(-1)
        cache.decode_chunk(DecodeView([block], [0] * (n + n_before), 0), chunk)
        note(n_layers)
    finally:
        cache.free_blocks([block])
    return [end_s - begin_s for begin_s, end_s in pairwise(times)]


def probe_link(links: Links, n_bytes: int) -> Link:
    """The link to the next rank, the last one's to the first. All ranks call it at the same time; n_bytes: of a large
    message. Raises what the links raise."""
    rank, n = links.rank, links.size
    sizes = [1] * N_MESSAGES + [n_bytes] * N_MESSAGES
    if rank > 0:
        _echo(links, rank - 1, sizes)
    seconds = _asked(links, (rank + 1) % n, sizes)
    if rank == 0:
        _echo(links, n - 1, sizes)
    there_and_back_s, large_s = min(seconds[:N_MESSAGES]), min(seconds[N_MESSAGES:])
    return Link(there_and_back_s / 2, n_bytes / max(large_s - there_and_back_s, 1e-9))


def _asked(links: Links, rank: int, sizes: Sequence[int]) -> list[float]:
    """Seconds until each message is answered. As in a prompt, what comes is waited for by a receive posted before."""
    answers = [links.receive(rank, TAG_LINK, _memory(1)) for _ in sizes]
    seconds: list[float] = []
    for answer, size in zip(answers, sizes, strict=True):
        message = _memory(size)
        begin_s = time.monotonic()
        sent = links.send(rank, TAG_LINK, message)
        answer.wait()
        seconds.append(time.monotonic() - begin_s)
        sent.wait()
    return seconds


def _echo(links: Links, rank: int, sizes: Sequence[int]) -> None:
    for message in [links.receive(rank, TAG_LINK, _memory(size)) for size in sizes]:
        message.wait()
        links.send(rank, TAG_LINK, _memory(1)).wait()


def _memory(n_bytes: int) -> Bytes:
    import numpy as np

    return np.zeros(n_bytes, dtype=np.uint8)
