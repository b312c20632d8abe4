"""A prompt of several ranks as it would go by their costs: the same rows that are noted of a real one."""

from __future__ import annotations

from collections.abc import Iterable

from .costs import Costs, Link, pairs
from .partition import Partition
from .routes import ROUTES, Method, Piece, Prompt
from .transport import LayerTrace, PassTrace


def simulate(costs: Costs, partition: Partition, n_known: int = 0, method: Method = "runahead") -> list[PassTrace]:
    """All ranks begin at 0 s. n_known: tokens before all of these, which the last rank has; method: not "alone"."""
    prompt = Prompt((), (n_known,) if n_known else (), partition, method)
    routes = [ROUTES[method](rank, prompt) for rank in range(len(partition))]
    out = [_Out(link) for link in costs.links]
    arrivals: list[dict[tuple[int, int], float]] = [{} for _ in costs.layers]
    n_sent = [[0] * len(costs.layers) for _ in routes]

    def send(rank: int, layer: int, pieces: Iterable[Piece], sent_s: float) -> None:
        for piece in pieces:
            n_bytes = piece.n * costs.layers[layer]
            arrivals[layer][rank, piece.rank] = out[rank].arrival_s(sent_s, n_bytes)
            n_sent[rank][layer] += n_bytes

    befores = [n_known + sum(partition[:rank]) for rank in range(len(partition))]
    chunks = list(zip(costs.ranks, partition, befores, strict=True))
    attention = [of.pair_s * pairs(n, before) for of, n, before in chunks]
    stored = [of.first_s * n for of, n, _ in chunks]
    rows: list[list[LayerTrace]] = [[] for _ in chunks]
    for layer in range(len(costs.layers)):
        send(len(routes) - 1, layer, (Piece(rank, 0, n_known) for rank in routes[-1].sends_known_to), 0.0)
    for layer, size in enumerate(costs.layers):
        for rank, route in enumerate(routes):
            send(rank, layer, route.sends_own, stored[rank])
        for rank, route in enumerate(routes):
            came = [piece for piece in route.receives if piece.n]
            received_s = max([stored[rank], *(arrivals[layer][piece.rank, rank] for piece in came)])
            send(rank, layer, route.sends_on, received_s)
            n_received = sum(piece.n for piece in came) * size
            rows[rank].append(LayerTrace(stored[rank], received_s, n_received, n_sent[rank][layer]))
            stored[rank] = received_s + attention[rank] + costs.ranks[rank].token_s * partition[rank]
    ends = [end_s + (of.last_s - of.token_s) * n for end_s, (of, n, _) in zip(stored, chunks, strict=True)]
    return [PassTrace(rank, n, 0.0, ends[rank], rows[rank]) for rank, n in enumerate(partition)]


def ttft(costs: Costs, partition: Partition, n_known: int = 0, method: Method = "runahead") -> float:
    """Seconds until the last rank has the logits."""
    return simulate(costs, partition, n_known, method)[-1].ended_s


class _Out:
    """What a rank sends: one message behind the other, whomever they go to."""

    def __init__(self, link: Link) -> None:
        self._link, self._free_s = link, 0.0

    def arrival_s(self, sent_s: float, n_bytes: int) -> float:
        self._free_s = max(self._free_s, sent_s) + n_bytes / self._link.bytes_per_s
        return self._free_s + self._link.latency_s
