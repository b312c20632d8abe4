"""What a prompt of several ranks costs: numbers made of two short passes, and what follows from them."""

from __future__ import annotations

import pytest

from hogwild_local.runahead.costs import Costs, Link, Probe, RankCosts, as_plain, fit, of_plain, pairs
from hogwild_local.runahead.simulation import simulate, ttft
from hogwild_local.runahead.transport import LayerTrace

RANK = RankCosts(first_s=1.0, token_s=10.0, last_s=3.0, pair_s=0.5)
FREE = RankCosts(0.0, 0.0, 0.0, 0.0)
NOW = Link(0.0, float("inf"))


def probe(rank: RankCosts, n: int, n_before: int) -> Probe:
    """What a pass says whose costs are known: the second rank of two, to whom all comes at once."""
    ranks, before = ([FREE, rank], [n_before, n]) if n_before else ([rank], [n])
    trace = simulate(Costs(ranks, [NOW] * len(ranks), [1] * 5), tuple(before))[-1]
    first, *_, last = [layer.stored_s for layer in trace.layers]
    return Probe(n, n_before, first, (last - first) / 4, trace.ended_s - last)


@pytest.mark.parametrize("rank", [RANK, RankCosts(0.1, 3.0, 2.0, 0.0), RankCosts(2.0, 0.0, 0.0, 1.0)])
def test_two_short_passes_tell_what_a_rank_costs(rank: RankCosts) -> None:
    assert fit(probe(rank, 64, 0), probe(rank, 64, 1024)) == pytest.approx(rank)


def test_noise_makes_no_cost_negative() -> None:
    assert min(fit(Probe(64, 0, 0.1, 5.0, 0.0), Probe(64, 1024, 0.1, 4.0, 0.0))) == 0.0


def test_costs_are_plain_data() -> None:
    costs = Costs([RANK, FREE], [Link(0.1, 5.0)] * 2, [7, 8])
    assert of_plain(as_plain(costs)) == costs


@pytest.mark.parametrize(
    "rows",
    [
        None,
        [],
        [[[1, 2, 3]], [[1, 2]], [1]],
        [[[1, 2, 3, 4]], [], [1]],
        [[[1, 2, 3, 4]], [[1, 2]], []],
        [[[1, 2, 3, -4]], [[1, 2]], [1]],
        [[[1, 2, 3, 4]], [[1, 0]], [1]],
        [[[1, 2, 3, float("nan")]], [[1, 2]], [1]],
        [[[1, 2, 3, "x"]], [[1, 2]], [1]],
    ],
)
def test_what_are_no_costs_is_refused(rows: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        of_plain(rows)


def test_one_rank_computes_all_of_a_prompt() -> None:
    """Four tokens see 10 pairs: 1 * 4, twice 0.5 * 10, once 10 * 4 between the layers, 3 * 4 behind the last one."""
    [trace] = simulate(Costs([RANK], [NOW], [1, 1]), (4,))
    assert trace.ended_s == 4 + 5 + 40 + 5 + 12
    assert trace.layers == [LayerTrace(4, 4, 0, 0), LayerTrace(49, 49, 0, 0)]


def test_a_rank_waits_for_what_stands_before_its_chunk() -> None:
    """Two bytes a token and layer; a message of 2 tokens takes 100 s and 2 more on the way."""
    first, last = simulate(Costs([RANK, RANK], [Link(2.0, 0.04)] * 2, [2, 2]), (2, 1))
    # The first rank sends each layer as soon as it is stored: at 2, and at 2 + 1.5 + 20.
    assert first.layers == [LayerTrace(2, 2, 0, 4), LayerTrace(23.5, 23.5, 0, 4)]
    assert first.ended_s == 23.5 + 1.5 + 6
    # They go one behind the other: the second one leaves when the first one has. The last rank sees 3 pairs a layer.
    assert last.layers == [LayerTrace(1, 104, 4, 0), LayerTrace(104 + 1.5 + 10, 204, 4, 0)]
    assert last.ended_s == 204 + 1.5 + 3
    assert last.waited_s == 103 + 88.5


def test_what_comes_is_sent_on_when_it_has_come() -> None:
    """Messages of 2 and of 3 tokens, 10 s and 15 s long."""
    traces = simulate(Costs([RANK] * 3, [Link(0.0, 0.2)] * 3, [1]), (2, 1, 1))
    assert [trace.layers[0].received_s for trace in traces] == [2, 2 + 10, 12 + 15]


def test_new_tokens_see_those_that_are_known() -> None:
    """Two new tokens see 203 pairs behind 100 known ones."""
    first, _ = simulate(Costs([RANK, RANK], [NOW, NOW], [1]), (2, 1), n_known=100)
    assert first.ended_s == 2 + 0.5 * 203 + 6


def test_known_tokens_go_from_the_last_rank_to_all_and_not_back() -> None:
    costs = Costs([RANK] * 3, [NOW, NOW, Link(7.0, float("inf"))], [1, 1])
    traces = simulate(costs, (4, 3, 2), n_known=100)
    assert [trace.n_received for trace in traces] == [2 * 100, 2 * 104, 2 * 7]
    assert [trace.n_sent for trace in traces] == [2 * 104, 2 * 7, 2 * 100]
    assert traces[0].layers[0].received_s == 7.0
    assert ttft(costs, (4, 3, 2), 100) > ttft(costs, (4, 3, 2))


def test_the_last_of_even_chunks_takes_longest() -> None:
    ends = [trace.ended_s for trace in simulate(Costs([RANK] * 3, [NOW] * 3, [1] * 4), (20, 20, 20))]
    assert ends == sorted(ends)
    assert ends[0] < ends[-1]


def test_the_papers_example_of_nine_tokens() -> None:
    """arXiv 2405.05329: a key and a value are two entries a token; 22 of them travel, instead of 36. A
    rank computes at most 21 dot products instead of 27, where those of tokens that a token does not see count too."""
    costs = Costs([FREE] * 3, [NOW] * 3, [2])
    runahead, gathered = simulate(costs, (4, 3, 2)), simulate(costs, (3, 3, 3), method="all-gather")
    assert sum(trace.n_sent for trace in runahead) == sum(trace.n_received for trace in runahead) == 22
    assert sum(trace.n_sent for trace in gathered) == sum(trace.n_received for trace in gathered) == 36

    def dot_products(n: int, before: int) -> float:
        return pairs(n, before) + n * (n - 1) / 2

    assert max(dot_products(4, 0), dot_products(3, 4), dot_products(2, 7)) == 21
    assert dot_products(3, 6) == 27


def test_all_wait_for_all_where_chunks_are_gathered() -> None:
    """A chunk is 4 bytes, at 4 bytes a second and 1 s on the way; what a rank sends, to whomever, goes one behind the
    other."""
    slow = RankCosts(5.0, 10.0, 3.0, 0.5)
    traces = simulate(Costs([RANK, slow, RANK], [Link(1.0, 4.0)] * 3, [2, 2]), (2, 2, 2), method="all-gather")
    # The first and the last one have stored at 2 s, the second one at 10 s: the first one has that at 12 s, the last
    # one at 13 s, and it waits for nobody.
    assert [trace.layers[0] for trace in traces] == [
        LayerTrace(2, 12, 8, 8), LayerTrace(10, 10, 8, 8), LayerTrace(2, 13, 8, 8)
    ]  # fmt: skip
    # They see 3, 7 and 11 pairs. The first one waits again for the last one, although it does not attend to it.
    assert [trace.layers[1].stored_s for trace in traces] == [33.5, 33.5, 38.5]
    assert [trace.layers[1].received_s for trace in traces] == [40.5, 41.5, 38.5]
    assert traces[2].ended_s == 38.5 + 5.5 + 6


def test_what_is_known_is_sent_to_all_where_chunks_are_gathered() -> None:
    traces = simulate(Costs([RANK] * 3, [NOW] * 3, [1]), (3, 3, 3), n_known=100, method="all-gather")
    assert [trace.n_received for trace in traces] == [106, 106, 6]
    assert [trace.n_sent for trace in traces] == [6, 6, 206]
