"""What a prompt costs several ranks, in a few numbers: of each rank's computing, and of the links between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


def pairs(n: int, before: int) -> float:
    """A token and one that it sees, itself included: of a chunk of n tokens behind others."""
    return n * before + n * (n + 1) / 2


class RankCosts(NamedTuple):
    """Seconds of a rank. Of a token of its chunk: until the first layer's keys and values are stored; from there to the
    next layer's, attention not counted; in the last layer. Of a pair, in each layer: attention."""

    first_s: float
    token_s: float
    last_s: float
    pair_s: float


class Link(NamedTuple):
    """From a rank to the next one, from the last one to the first. Messages go one behind the other."""

    latency_s: float
    bytes_per_s: float


class Costs(NamedTuple):
    """Of all ranks, of the link behind each of them; and the bytes of a token in each layer."""

    ranks: Sequence[RankCosts]
    links: Sequence[Link]
    layers: Sequence[int]


class Probe(NamedTuple):
    """A chunk that was computed alone, behind cells that hold anything. Seconds until the first layer was stored, from
    one layer's to the next one's, and from the last one's to the end."""

    n_tokens: int
    n_before: int
    first_s: float
    layer_s: float
    last_s: float


def fit(near: Probe, far: Probe) -> RankCosts:
    """near: a chunk with nothing before it; far: one of as many tokens with many before it."""
    n, seen = near.n_tokens, pairs(near.n_tokens, near.n_before)
    pair_s = max(0.0, (far.layer_s - near.layer_s) / (pairs(n, far.n_before) - seen))
    token_s, last_s = (max(0.0, seconds - pair_s * seen) / n for seconds in (near.layer_s, near.last_s))
    return RankCosts(min(near.first_s, far.first_s) / n, token_s, last_s, pair_s)


def as_plain(costs: Costs) -> list[Any]:
    """Costs as what JSON and marshal can carry."""
    return [[list(of) for of in costs.ranks], [list(link) for link in costs.links], list(costs.layers)]


def of_plain(rows: Any) -> Costs:
    """Raises TypeError, ValueError where these are no costs."""
    ranks, links, layers = rows
    costs = Costs(
        [RankCosts(*map(float, row)) for row in ranks],
        [Link(*map(float, row)) for row in links],
        [int(size) for size in layers],
    )
    numbers = [number for row in (*costs.ranks, *costs.links, costs.layers) for number in row]
    is_whole = (
        len(costs.ranks) == len(costs.links) and costs.layers and all(link.bytes_per_s > 0 for link in costs.links)
    )
    if not is_whole or not all(0 <= each < 1e30 for each in numbers):
        raise ValueError("costs are numbers from 0 on, of as many ranks as links")
    return costs
