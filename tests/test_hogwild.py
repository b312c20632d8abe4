"""Hogwild's arguments: each fault is a typed error that names the argument, and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import TINY_STYLE, FakeEngine, FakeModel

from hogwild_local.errors import InvalidArgument, ModelError
from hogwild_local.hogwild import Hogwild
from hogwild_local.options import SamplingParams
from hogwild_local.workers.writer import default_names, worker_seed


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"n_ctx": 0}, "n_ctx"),
        ({"n_ctx": 3.5}, "n_ctx"),
        ({"n_ctx": True}, "n_ctx"),
        ({"n_batch": 0}, "n_batch"),
        ({"n_gpu_layers": -2}, "n_gpu_layers"),
        ({"n_threads": 0}, "n_threads"),
        ({"max_runs": 0}, "max_runs"),
        ({"max_runs": True}, "max_runs"),
        ({"prompts": 3}, "prompts"),
        ({"prompts": "none.toml"}, "none.toml"),
    ],
)
def test_a_wrong_setting_is_named_before_the_model_is_loaded(options: dict[str, Any], fault: str) -> None:
    fake = FakeEngine()
    with pytest.raises(InvalidArgument, match=fault):
        Hogwild("m.gguf", engine=fake.engine, **options)
    assert fake.model_arguments == {}


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "  \n"}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [{"role": "user"}]}, "prompt.*content"),
        ({"prompt": [{"role": "user", "content": ["a"]}]}, "prompt.*content"),
        ({"prompt": [{"role": "system", "content": "a"}]}, "prompt.*user"),
        ({"workers": 0}, "workers"),
        ({"workers": True}, "workers"),
        ({"workers": []}, "workers"),
        ({"workers": "Alice"}, "workers"),
        ({"workers": ["A", "A"]}, "workers.*'A'.*twice"),
        ({"workers": ["A", " "]}, "workers.*non-empty"),
        ({"workers": ["A", 3]}, "workers.*3"),
        ({"workers": 65}, "workers.*n_batch >= 65"),
        ({"layout": "diagonal"}, "layout"),
        ({"max_passes": 0}, "max_passes"),
        ({"max_passes": 1.5}, "max_passes"),
        ({"seed": "x"}, "seed"),
        ({"stop": ["a", ""]}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stop": 3}, "stop.*3"),
        ({"stop": None}, "stop.*None"),
        ({"stop": b"x"}, "stop.*b'x'"),
        ({"answer_at": "end"}, "answer_at.*end"),
        ({"eos_ends_run": 1}, "eos_ends_run"),
        ({"finisher": 1}, "finisher"),
        ({"finisher_tokens": 0}, "finisher_tokens"),
        ({"redundancy_every": -1}, "redundancy_every"),
        ({"thinking": None}, "thinking"),
        ({"sampling": {"temperature": 1}}, "sampling.*temperature"),
        ({"sampling": {"Alice": 1}}, "sampling.*Alice"),
        ({"sampling": 3}, "sampling"),
    ],
)
def test_a_wrong_option_of_a_run_is_named_at_once(options: dict[str, Any], fault: str) -> None:
    fake = FakeEngine()
    with Hogwild("m.gguf", prompts=TINY_STYLE, n_batch=64, engine=fake.engine) as hw:
        with pytest.raises(InvalidArgument, match=fault):
            hw.stream(**{"prompt": "P", **options})
        assert hw.generate("P", max_passes=1).reason == "budget"


def test_too_many_workers_are_refused_before_their_names_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hogwild_local.workers.limits.default_names", lambda n: pytest.fail(f"{n} names"))
    hw = Hogwild("m.gguf", prompts=TINY_STYLE, n_batch=64, engine=FakeEngine().engine)
    with hw, pytest.raises(InvalidArgument, match="n_batch >= 100000000"):
        hw.stream("P", workers=100_000_000)


def test_an_unknown_option_is_a_type_error() -> None:
    with Hogwild("m.gguf", engine=FakeEngine().engine) as hw, pytest.raises(TypeError, match="max_tokens"):
        hw.generate("P", max_tokens=3)


@pytest.mark.parametrize(
    ("params", "fault"),
    [
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": "x"}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"repeat_penalty": 0}, "repeat_penalty"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_wrong_sampling_setting_is_named(params: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidArgument, match=fault):
        SamplingParams(**params)


def test_settings_reach_the_engine() -> None:
    fake = FakeEngine()
    with Hogwild("m.gguf", n_ctx=100, n_batch=7, n_gpu_layers=-1, n_threads=3, type_k="f32", engine=fake.engine) as hw:
        assert hw.n_ctx == 100
    assert fake.model_arguments["path"] == Path("m.gguf")
    assert (fake.model_arguments["n_gpu_layers"], fake.model_arguments["n_threads"]) == (-1, 3)
    assert fake.cache
    assert (fake.cache.n_batch, fake.cache.type_k, fake.cache.type_v) == (7, "f32", "f16")


def test_a_model_that_was_passed_is_not_closed() -> None:
    fake = FakeEngine()
    with Hogwild(fake.model, engine=fake.engine):
        pass
    assert fake.cache
    assert fake.cache.closed
    assert not fake.model.closed


def test_settings_of_a_model_are_refused_beside_a_loaded_one() -> None:
    fake = FakeEngine()
    with pytest.raises(InvalidArgument, match="n_threads"):
        Hogwild(fake.model, n_threads=2, engine=fake.engine)


def test_a_failing_start_closes_the_model() -> None:
    fake = FakeEngine(model=FakeModel("{% broken"))
    with pytest.raises(ModelError, match="template"):
        Hogwild("m.gguf", engine=fake.engine)
    assert fake.model.closed


def test_names_are_unique_for_any_number() -> None:
    assert default_names(3) == ["Alice", "Bob", "Carol"]
    assert len(set(default_names(100))) == 100


def test_seeds_of_workers_are_valid_and_differ() -> None:
    seeds = [worker_seed(seed, worker) for seed in (0, 1, 2**63, -5) for worker in range(50)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 - 1 for seed in seeds)
    # Part of the contract: changing it changes everybody's output.
    assert [worker_seed(1, 0), worker_seed(1, 1)] == [601028396, 2894673474]
