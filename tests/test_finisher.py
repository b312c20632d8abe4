"""What is asked of the workers and of the finisher, and how they sample."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import SPECIAL, TEMPLATE, THINK, THINK_END, TINY_STYLE, FakeEngine, FakeModel
from runs import fed, hogwild, of, run, seen_by_finisher, texts

from hogwild_local import events as ev
from hogwild_local.options import SamplingParams, Worker
from hogwild_local.workers.layouts import LAYOUTS
from hogwild_local.workers.writer import worker_seed

# -- redundancy and finisher --


def test_the_next_worker_to_start_a_step_gets_the_redundancy_question() -> None:
    fake = FakeEngine("A.\n\nB.\n\nC.\n\n", "uvwxyzuvwxyz")
    events = run(fake, redundancy_every=25, max_passes=9)
    # Fed were 8 + 6 and 1 + 1 tokens when step 2 starts, 9 + 1 and 1 + 1 more with step 3, which asks; 18 since then.
    assert of(events, ev.RedundancyCheck) == [ev.RedundancyCheck("Alice", 3)]
    prefixes = [e.text for e in of(events, ev.StepStarted) if e.worker == "Alice"]
    assert prefixes == ["<Alice1>", "<Alice2>", "<Alice3>again?", "<Alice4>"]
    assert fed(fake, 4)[0] == ".\n\n<Alice3>again?"


def test_the_redundancy_question_counts_prefixes_too() -> None:
    # Sampled are 4 tokens when Alice's step ends, fed 8 + 6 and 2.
    events = run(FakeEngine("A.\n\n", "uvwxyz"), redundancy_every=16, max_passes=2)
    assert of(events, ev.RedundancyCheck) == [ev.RedundancyCheck("Alice", 2)]


def test_of_two_steps_that_start_together_one_gets_the_question() -> None:
    events = run(FakeEngine("A.\n\n", "B.\n\n"), redundancy_every=1, max_passes=2)
    assert of(events, ev.RedundancyCheck) == [ev.RedundancyCheck("Alice", 2)]


@pytest.mark.parametrize(("workers", "every"), [(1, 1), (2, 0)])
def test_nobody_is_asked_without_others_or_with_0(workers: int, every: int) -> None:
    events = run(FakeEngine("A.\n\nB.\n\n", "C.\n\n"), workers=workers, redundancy_every=every)
    assert of(events, ev.RedundancyCheck) == []


def test_the_finisher_asks_greedily_after_all_that_was_written() -> None:
    fake = FakeEngine("Hi.\n\nyo", "uvw", finisher="42} and")
    events = run(fake, max_passes=4, finisher=True)
    assert of(events, ev.FinisherStarted) == [ev.FinisherStarted("=\\boxed{")]
    assert texts(events)[None] == "42}"
    assert of(events, ev.Answer) == [ev.Answer("42", None)]
    assert events[-1].reason == "budget"  # type: ignore[attr-defined]
    assert seen_by_finisher(fake) == "<bos>s=R;u=P;|<Alice1>Hi.\n\n<Alice2>y<Bob1>uvwx"
    assert fed(fake, 5) == ["=\\boxed{"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_finisher_reads_all_that_was_shown(layout: str) -> None:
    fake = FakeEngine("ab 42", "uvwxy", finisher="5}")
    events = run(fake, max_passes=5, finisher=True, layout=layout, n_ctx=15 + 14 + 10 + 8 + 16)
    assert texts(events) == {"Alice": "ab 42", "Bob": "uvwxy", None: "5}"}
    assert seen_by_finisher(fake).endswith("<Alice1>ab 42<Bob1>uvwxy")


def test_passes_for_the_finisher_are_not_of_the_budget() -> None:
    events = run(FakeEngine("abcdef", "uvwxyz", finisher="12}"), max_passes=4, finisher=True)
    timings = events[-1].timings  # type: ignore[attr-defined]
    assert (timings.passes, timings.closing_passes) == (4, 1 + 3)
    assert [event.n_pass for event in of(events, ev.PassEnded)] == list(range(1, 9))


def test_a_finisher_that_runs_out_of_tokens_leaves_its_text_in_the_result() -> None:
    fake = FakeEngine(finisher=[*b"1", *"€".encode()[:2]])
    with hogwild(fake) as hw:
        result = hw.generate("P", max_passes=2, finisher_tokens=3)
        assert (result.answer, result.finisher) == (None, "1\ufffd")
        assert hw.generate("P", max_passes=2, finisher=False).finisher is None


def test_each_pass_ends_with_an_event_of_its_timings() -> None:
    events = run(FakeEngine("Hi.\n\nyo", "uvw", finisher="1}"), max_passes=4, finisher=True)
    at = [i for i, event in enumerate(events) if isinstance(event, ev.PassEnded)]
    assert [events[i].n_pass for i in at] == list(range(1, 8))  # type: ignore[attr-defined]
    for i in at:
        before = events[i - 1]
        assert isinstance(before, ev.Token | ev.StepStarted | ev.WorkerFinished)
    tokens = [sum(isinstance(event, ev.Token) for event in events[:i]) for i in at]
    assert [events[i].usage.completion_tokens for i in at] == tokens  # type: ignore[attr-defined]
    last = events[at[-1]]
    assert isinstance(last, ev.PassEnded)
    assert isinstance(events[-1], ev.RunEnded)
    assert (last.timings, last.usage) == (events[-1].timings, events[-1].usage)


def test_the_finisher_gives_up_after_its_tokens() -> None:
    events = run(FakeEngine(finisher="1" * 99), finisher=True, finisher_tokens=5)
    assert texts(events)[None] == "11111"
    assert of(events, ev.Answer) == []
    assert events[-1].answer is None  # type: ignore[attr-defined]


def test_without_finisher_nobody_asks() -> None:
    assert of(run(FakeEngine(finisher="1}")), ev.FinisherStarted) == []


# -- seeds and sampling --


def test_same_seed_same_output() -> None:
    first, again, other = (texts(run(FakeEngine(), workers=3, seed=seed)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_each_worker_has_a_seed_of_its_own_that_others_do_not_change() -> None:
    two, three = (texts(run(FakeEngine(), workers=n, seed=7)) for n in (2, 3))
    assert two["Alice"] == three["Alice"]
    assert len(set(three.values())) == 3


def test_a_run_without_seed_tells_the_one_it_drew() -> None:
    events = run(FakeEngine(), seed=None)
    seed = of(events, ev.RunStarted)[0].seed
    assert texts(run(FakeEngine(), seed=seed)) == texts(events)


def test_sampling_can_be_set_by_worker() -> None:
    fake = FakeEngine()
    run(fake, workers=["Alice", Worker("Bob", sampling=SamplingParams(temperature=0.0, seed=99))])
    alice, bob = (sampler.params for sampler in fake.samplers)
    assert (alice.temperature, bob.temperature) == (0.8, 0.0)
    assert (alice.seed, bob.seed) == (worker_seed(1, 0), worker_seed(99, 1))


def test_a_seed_for_all_workers_gives_each_its_own() -> None:
    fake = FakeEngine()
    first = texts(run(fake, workers=3, sampling=SamplingParams(seed=7), seed=1))
    assert len(set(first.values())) == 3
    assert texts(run(FakeEngine(), workers=3, sampling=SamplingParams(seed=7), seed=2)) == first


def test_forbidden_tokens_are_biased_away_unless_the_user_says_otherwise() -> None:
    fake = FakeEngine()
    run(fake, workers=["Alice", Worker("Bob", sampling=SamplingParams(logit_bias={259: 1.0}))])
    assert [dict(sampler.params.logit_bias) for sampler in fake.samplers] == [
        {259: -float("inf")},
        {259: 1.0},
    ]


def test_the_tags_of_the_models_template_are_forbidden_in_place_of_think(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPECIAL, THINK_END, "<|inner_suffix|>")
    fake = FakeEngine(model=FakeModel(TEMPLATE + "{{ '<|inner_prefix|>' if thinking }}"))
    run(fake)
    assert [dict(sampler.params.logit_bias) for sampler in fake.samplers] == [{THINK_END: -float("inf")}] * 2


def test_eos_among_the_forbidden_texts_is_the_models_own() -> None:
    fake = FakeEngine()
    fake.model.eos = THINK  # whatever its text is
    style = replace(TINY_STYLE, step=replace(TINY_STYLE.step, forbidden=("<eos>",)))
    run(fake, prompts=style)
    assert [dict(sampler.params.logit_bias) for sampler in fake.samplers] == [{THINK: -float("inf")}] * 2
