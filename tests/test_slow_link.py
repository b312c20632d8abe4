"""Links that are made slower: when messages arrive, by hand-made clocks, and that they do not arrive before."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
from ranks import Done

from hogwild_local.errors import RankLost
from hogwild_local.runahead.slow_link import NOISE_PERIOD_S, Limits, Link, SlowLinks, disturbed, limited
from hogwild_local.runahead.transport import Bytes

NEVER, ALWAYS = 2, 0  # pairs of three ranks


def test_messages_of_a_link_go_one_after_the_other_and_latency_adds_nothing_to_the_next() -> None:
    link = Link(Limits(bytes_per_s=100.0, latency_s=3.0), 0, 1, 2, begin_s=1000.0)
    assert link.arrival_s(1000.0, 200) == 1005.0
    assert link.arrival_s(1001.0, 100) == 1006.0  # behind the first one
    assert link.arrival_s(1010.0, 100) == 1014.0  # what was not used is lost
    assert link.arrival_s(1020.0, 0) == 1023.0


def test_a_disturbed_link_has_what_is_left_of_its_rate_until_the_period_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    periods = {0: ALWAYS, 1: NEVER, 2: 1}  # of the pair 0 and 1, of none, of the pair 1 and 2
    monkeypatch.setattr(
        "hogwild_local.runahead.slow_link.disturbed", lambda seed, period, n: periods.get(period, NEVER)
    )
    limits = Limits(bytes_per_s=100 / NOISE_PERIOD_S, noise=0.75)  # 100 bytes a period, 25 if it is disturbed

    def periods_of(source: int, target: int, n_bytes: int, begin: float = 0.0) -> float:
        link = Link(limits, source, target, 3, begin_s=5.0)
        return (link.arrival_s(5.0 + begin * NOISE_PERIOD_S, n_bytes) - 5.0) / NOISE_PERIOD_S

    assert periods_of(0, 1, 20) == pytest.approx(0.8)
    assert periods_of(1, 0, 20) == pytest.approx(0.8)
    assert periods_of(0, 1, 75) == pytest.approx(1.5)
    assert periods_of(0, 1, 50, begin=0.5) == pytest.approx(1.375)
    assert periods_of(1, 2, 225) == pytest.approx(3.0)
    assert periods_of(0, 2, 225) == pytest.approx(2.25)  # no neighbours


def test_noise_disturbs_each_pair_or_none_as_often_and_is_repeated_by_its_seed() -> None:
    drawn = [disturbed(7, period, 4) for period in range(2000)]
    assert drawn == [disturbed(7, period, 4) for period in range(2000)]
    assert drawn != [disturbed(8, period, 4) for period in range(2000)]
    assert all(400 < drawn.count(pair) < 600 for pair in range(4))


@pytest.mark.parametrize("begin", [0.3, 1e6 + 0.1])
def test_long_messages_end_whatever_the_rounding_of_periods(begin: float) -> None:
    link = Link(Limits(bytes_per_s=1000.0, noise=0.5, seed=3), 0, 1, 2, begin)
    at = begin
    for _ in range(2000):
        arrival = link.arrival_s(at, 100)  # a period's worth: ends fall on ends
        assert 0.1 - 1e-6 <= arrival - at <= 0.2 + 1e-6
        at = arrival


@dataclass
class Noted:
    """Links that note when what was handed on."""

    rank: int = 0
    size: int = 3
    sent: list[tuple[float, int, bytes]] = field(default_factory=list)
    is_lost: bool = False
    given_up: int = 0

    def give_up(self, number: int) -> None:
        self.given_up = number

    def send(self, rank: int, tag: int, data: Bytes) -> Done:
        if self.is_lost:
            raise RankLost("a rank is lost")
        self.sent.append((time.monotonic(), rank, data.tobytes()))
        return Done()

    def receive(self, rank: int, tag: int, into: Bytes) -> Done:
        return Done()

    def reached(self, layer: int) -> None:
        pass


def data_of(n: int) -> Bytes:
    return np.full(n, n, dtype=np.uint8)


def test_what_is_sent_is_handed_on_in_order_and_not_before_it_has_arrived() -> None:
    links = Noted()
    with limited(links, Limits(bytes_per_s=1000.0, latency_s=0.02)) as slow:
        start = time.monotonic()
        messages = [slow.send(1, 0, data_of(50)), slow.send(1, 0, data_of(40)), slow.send(2, 0, data_of(60))]
        for message in messages:
            message.wait()
    times = {(rank, len(data)): at - start for at, rank, data in links.sent}
    assert [len(data) for _, rank, data in links.sent if rank == 1] == [50, 40]
    assert times[1, 50] >= 0.07
    assert times[1, 40] >= 0.11
    assert times[2, 60] >= 0.08


def test_waiting_costs_no_computing() -> None:
    with limited(Noted(), Limits(bytes_per_s=100.0)) as slow:
        before = time.process_time()
        slow.send(1, 0, data_of(50)).wait()
        assert time.process_time() - before < 0.25  # half a second of waiting


def test_a_rank_that_is_lost_is_told_to_who_waits_and_what_is_under_way_is_dropped() -> None:
    n_threads = threading.active_count()
    links = Noted(is_lost=True)
    with limited(links, Limits(bytes_per_s=1e6)) as slow, pytest.raises(RankLost):
        slow.send(1, 0, data_of(10)).wait()
    start = time.monotonic()
    SlowLinks(links, Limits(bytes_per_s=1.0)).close()
    with limited(Noted(), Limits(bytes_per_s=1.0)) as slow:
        slow.send(1, 0, data_of(60))
    assert time.monotonic() - start < 30
    assert threading.active_count() == n_threads
