"""Random says, adds and stops: every layout's views stay as its rules say, and their logits are those of the same
tokens in a cache built from scratch."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeEngine, Feed
from runs import of
from spoken import STYLE, hogwild

from hogwild_local import Hogwild, SamplingParams, SharedCache, Worker
from hogwild_local import events as ev
from hogwild_local.errors import Closed
from hogwild_local.prompts.style import PromptStyle
from hogwild_local.prompts.tables import Step
from hogwild_local.workers.layouts import LAYOUTS
from hogwild_local.workers.run import Run

N_SEEDS, MAX_PASSES = 12, 60
TOLERANCE = 1e-3  # f32 model and cache: what is left is the order of sums


def act(run: Run, chance: random.Random) -> None:
    """Something, or nothing, of what can be asked of a run."""
    kind = chance.choice(["say", "say", "add", "add", "stop", "", "", "", "", ""])
    names = run.workers
    try:
        if kind == "say":
            run.say("".join(chance.choices("uvwxyz", k=chance.choice([1, 5, 150]))), chance.choice([None, *names]))
        elif kind == "add" and len(names) < 9:
            run.add(Worker(f"n{len(names)}", role=chance.choice([None, "r" * chance.choice([1, 9, 80])])))
        elif kind == "stop" and len(names) > 2:
            run.stop(chance.choice(names))
    except Closed:  # all have ended
        pass


def team(chance: random.Random) -> list[Worker]:
    return [Worker(f"n{i}", role=chance.choice([None, "r" * 7])) for i in range(chance.randrange(1, 4))]


# -- rules --


def plain(text: str) -> str:
    """Without what ends a step, which the history does not get, or the step after it does."""
    return re.sub(r"[.\n]", "", text)


def items(events: Sequence[ev.Event], layout: str) -> Iterator[tuple[int, str]]:
    """What joins the history, in its order, with the number of the pass after which it is told."""
    n_pass = 0
    for event in events:
        match event:
            case ev.PassEnded():
                n_pass = event.n_pass
            case ev.Said():
                yield n_pass + 1, plain(event.shown)
            case ev.StepEnded() if layout != "contiguous":
                yield n_pass + 1, plain(event.text)


def is_prefix(history: str, told: Sequence[tuple[int, str]], n_pass: int) -> bool:
    """Whether a history before pass n_pass holds all that was told before, in order, and nothing that came later."""
    least = "".join(text for n, text in told if n < n_pass)
    # What ends between two passes is told with the second one.
    most = [text for n, text in told if n == n_pass]
    return any(history == least + "".join(most[:n]) for n in range(len(most) + 1))


def check_view(feed: Feed, layout: str, writing: set[int], roles: dict[int, str]) -> None:
    """That the blocks of one worker's view, all but the history, are those of its layout."""
    names, own = feed.names, int(feed.names[-1].split()[1])
    assert names[0] == "shared"
    rest = names[1:-1]
    if own in roles:
        assert rest.pop(0).startswith("role")
        assert feed.before[1] == roles[own]
    if layout == "combined":
        assert rest.pop(0) == "header"
    if layout != "interleaved":
        assert rest.pop() == "separator"
    others = [int(name.split()[1]) for name in rest]
    if layout == "interleaved":
        assert others == []
    assert others == sorted(others)
    assert own not in others
    if layout != "interleaved":
        assert writing - {own} <= set(others)


@pytest.mark.parametrize("seed", range(N_SEEDS))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_views_stay_as_the_layouts_rules_say(layout: str, seed: int) -> None:
    chance = random.Random(f"{layout}{seed}")
    scripts = ["".join(chance.choice(["a", "b", "c", ".\n\n"]) for _ in range(90)) for _ in range(12)]
    fake = FakeEngine(*scripts)
    with hogwild(fake, n_ctx=8192) as hw:
        workers = team(chance)
        roles = {i: f"(n{i}:{worker.role})" for i, worker in enumerate(workers) if worker.role}
        events, ends, index, asked = [], [0], {w.name: i for i, w in enumerate(workers)}, {}
        stream = hw.stream("P", workers=workers, layout=layout, max_passes=MAX_PASSES, finisher=False, seed=seed)
        add = stream.add

        def noted(worker: Worker) -> None:
            add(worker)
            asked[worker.name] = worker.role

        stream.add = noted  # type: ignore[method-assign, assignment]
        for event in stream:
            events.append(event)
            if isinstance(event, ev.WorkerJoined):
                index[event.worker] = len(index)
                if asked[event.worker]:
                    roles[index[event.worker]] = f"({event.worker}:{asked[event.worker]})"
            if isinstance(event, ev.PassEnded):
                assert fake.cache
                ends.append(len(fake.cache.passes))
                act(stream, chance)
        assert fake.n_open == 0
        assert hw.n_free == hw.n_ctx
    told = list(items(events, layout))
    assert fake.cache
    passes = fake.cache.passes[ends[1] - 1 :]
    prompt = "<bos>s=R;u=P;" + ("|" if layout == "combined" and len(workers) > 1 else "")
    with_texts = len(workers) > 1
    # After the budget some may leave with a last token that nobody was to read.
    for n_pass, feeds in enumerate(passes[:MAX_PASSES], 1):
        writing = {int(feed.names[-1].split()[1]) for feed in feeds if feed.names[-1].startswith("worker")}
        for feed in feeds:
            history = plain(feed.before[0])
            assert history.startswith(prompt)
            if feed.names[-1].startswith("worker"):
                assert is_prefix(history[len(prompt) :], told, n_pass)
                if with_texts:
                    check_view(feed, layout, writing, roles)
            else:  # what is said, or a role
                assert [feed.names[0], len(feed.names)] == ["shared", 2]
    assert len(passes) == len(ends) - 1


# -- logits --


@pytest.fixture(scope="module", params=["auto", "ggml"])
def one_layer(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Hogwild]:
    """Keys and values of its layer come from the tokens alone: whatever a token was computed behind, a view has the
    logits of its tokens in a row."""
    from models.transformer import Shape, write_transformer
    from models.weights import seeded

    path: Path = tmp_path_factory.mktemp("models") / "one-layer.gguf"
    write_transformer(path, "one layer", Shape("llama", 1, 120, 6, 3, 20, 168), "f32", seeded(0))
    style: PromptStyle = replace(STYLE, step=Step("<{{ name }}1>", "<{{ name }}{{ step }}>", "e", "", ()))
    options: dict[str, Any] = {"n_threads": 1, "type_k": "f32", "type_v": "f32", "prompts": style}
    with Hogwild(path, n_ctx=8192, attention=request.param, **options) as made:
        yield made


def noting(hw: Hogwild, rows: list[tuple[list[int], Any]]) -> Callable[..., list[int | None]]:
    """next_tokens() of a cache, which notes the tokens of each view, as they stand in the pass, and its logits."""
    cache = hw._cache

    def next_tokens(views: Sequence[Any], samplers: Sequence[Any]) -> list[int | None]:
        new = {id(blocks[-1]): list(tokens) for blocks, tokens in views}
        seen = [
            [token for block in blocks for token in [*block.tokens, *new.get(id(block), ())]] for blocks, _ in views
        ]
        logits = cache.decode(views)
        rows.extend(zip(seen, logits, strict=True))
        return [sampler and sampler.sample(row) for sampler, row in zip(samplers, logits, strict=True)]

    return next_tokens


def letters(hw: Hogwild, seed: int) -> SamplingParams:
    """Steps of some five letters."""
    allowed = set(b"abcdefg")
    return SamplingParams(
        temperature=2.0, logit_bias={token: -math.inf for token in range(hw.model.n_vocab) if token not in allowed}
    )


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_are_those_of_a_cache_built_from_scratch(
    layout: str, seed: int, one_layer: Hogwild, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(f"{seed}{layout}")
    rows: list[tuple[list[int], Any]] = []
    monkeypatch.setattr(one_layer._cache, "next_tokens", noting(one_layer, rows))
    events = []
    options: dict[str, Any] = {"layout": layout, "max_passes": 25, "seed": seed, "reply": False}
    workers, sampling = team(chance), letters(one_layer, seed)
    with one_layer.stream("Go.", workers=workers, sampling=sampling, finisher=False, **options) as stream:
        for event in stream:
            events.append(event)
            if isinstance(event, ev.PassEnded):
                act(stream, chance)
    assert one_layer.n_free == one_layer.n_ctx
    assert of(events, ev.Said)
    assert of(events, ev.WorkerJoined)
    assert "stopped" in {event.reason for event in of(events, ev.WorkerFinished)}
    with SharedCache(one_layer.model, n_ctx=4096, type_k="f32", type_v="f32") as scratch:
        for tokens, logits in rows:
            block = scratch.block()
            wanted = scratch.decode([([block], tokens)])[0]
            block.free()
            assert np.abs(wanted - logits).max() <= TOLERANCE
    assert len(rows) > 40


def test_of_all_that_is_said_no_token_is_fed_twice(one_layer: Hogwild, monkeypatch: pytest.MonkeyPatch) -> None:
    fed, feed, letters = [], one_layer._cache.next_tokens, set(b"QXZ")

    def noted(views: Sequence[Any], samplers: Sequence[Any]) -> Any:
        fed.extend(token for _, tokens in views for token in tokens)
        return feed(views, samplers)

    monkeypatch.setattr(one_layer._cache, "next_tokens", noted)
    sampling = SamplingParams(logit_bias=dict.fromkeys(letters, -math.inf))
    stream = one_layer.stream("Go.", max_passes=8, sampling=sampling, seed=1, reply=False, cache_prompt=False)
    stream.say("QXZ")
    stream.add(Worker("Carol", role="ZXQ"))
    list(stream)
    assert sum(token in letters for token in fed) == 6


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_engine_of_its_own_process_is_spoken_to_alike(layout: str, tiny_path: Callable[..., Path]) -> None:
    def told(isolate: bool) -> list[ev.Event]:
        options: dict[str, Any] = {"type_k": "f32", "type_v": "f32", "prompts": STYLE, "isolate": isolate}
        with Hogwild(tiny_path("llama"), n_ctx=2048, n_threads=1, **options) as hw:
            events = []
            team = ["A", Worker("B", role="doubt")]
            with hw.stream("Go.", workers=team, layout=layout, max_passes=10, seed=3, reply=False) as stream:
                for event in stream:
                    events.append(event)
                    if isinstance(event, ev.PassEnded) and event.n_pass == 3:
                        stream.say("hey", "A")
                        stream.add(Worker("C", role="prove"))
                        stream.stop("B")
            assert hw.n_free == hw.n_ctx
        return [event for event in events if not isinstance(event, ev.PassEnded | ev.RunEnded)]

    assert told(isolate=True) == told(isolate=False)
