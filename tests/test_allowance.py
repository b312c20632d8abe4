"""What one caller's runs may have together: others find cells and a place, and wait for nothing of his."""

from __future__ import annotations

import time

import pytest
from fakes import TINY_STYLE, FakeEngine
from server_helper import Served, served, until

from hogwild_local import Hogwild
from hogwild_local import events as ev
from hogwild_local.errors import CacheFull
from hogwild_local.workers.admission import Allowance


def loaded(n_ctx: int = 512, seconds: float = 0.0) -> Hogwild:
    made = Hogwild("m.gguf", n_ctx=n_ctx, prompts=TINY_STYLE, engine=FakeEngine(filler=ord("x")).engine)
    made._cache.on_decode = lambda cache: time.sleep(seconds)
    return made


def test_a_run_has_no_more_than_its_allowance_and_ends_in_order() -> None:
    with loaded() as hw:
        run = hw.stream("P")
        run.limit(Allowance(200, 1))
        least, last = hw.n_ctx, None
        for event in run:
            least, last = min(least, hw.n_free), event
            if isinstance(event, ev.PassEnded):
                assert event.usage.context_left < 200
        assert isinstance(last, ev.RunEnded)
        assert hw.n_ctx - 200 <= least < hw.n_ctx - 100
        assert hw.n_free == hw.n_ctx


def test_a_prompt_beyond_the_allowance_says_so() -> None:
    with loaded() as hw:
        run = hw.stream("P" * 300)
        run.limit(Allowance(200, 1))
        with pytest.raises(CacheFull) as full:
            next(run)
        assert full.value.free == 200


def test_runs_of_one_allowance_have_it_together_and_what_they_stand_on_once() -> None:
    with loaded() as hw:
        prompt = "P" * 100
        hw.generate(prompt, max_passes=1)
        allowance, runs = Allowance(260, 2), []
        for _ in range(2):
            run = hw.stream(prompt, max_passes=20)
            run.limit(allowance)
            assert isinstance(next(run), ev.RunStarted)
            runs.append(run)
        for run in runs:
            list(run)
        assert hw.n_free == hw.n_ctx


def going(server: Served, client: str, **more: int) -> str:
    body = {"prompt": "P", **more}
    head = {"Authorization": f"Bearer {client}"}
    until(lambda: server.client.get("/health").status_code == 200)
    return str(server.post("/v1/runs", body, headers=head).json()["id"])


def status(server: Served, client: str, run: str) -> str:
    head = {"Authorization": f"Bearer {client}"}
    return str(server.client.get(f"/v1/runs/{run}", headers=head).json()["status"])


def test_a_client_who_has_all_that_he_may_holds_up_nobody_else() -> None:
    with served(lambda: _limited(), parallel=4, api_keys=["a", "b"]) as server:
        mine = [going(server, "a", max_passes=100_000) for _ in range(4)]
        assert [status(server, "a", run) for run in mine] == ["running"] * 3 + ["queued"]
        other = going(server, "b", max_passes=5)
        until(lambda: status(server, "b", other) == "ended")
        assert status(server, "a", mine[3]) == "queued"
        for run in mine:
            server.client.delete(f"/v1/runs/{run}", headers={"Authorization": "Bearer a"})
        server.idle()


def _limited() -> Hogwild:
    made = Hogwild("m.gguf", n_ctx=4096, max_runs=4, prompts=TINY_STYLE, engine=FakeEngine(filler=ord("x")).engine)
    made._cache.on_decode = lambda cache: time.sleep(0.01)
    return made


def test_a_client_is_told_what_he_can_have() -> None:
    for parallel, n in ((4, 3072), (1, 4096)):
        with served(lambda: loaded(4096), parallel=parallel) as server:
            assert server.client.get("/props").json()["default_generation_settings"]["n_ctx"] == n
            asked = {"messages": [{"role": "user", "content": "P" * 5000}]}
            assert f"there are {n}" in server.post("/v1/chat/completions", asked).json()["error"]["message"]
