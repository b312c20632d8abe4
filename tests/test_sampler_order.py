"""The steps of a sampler stand in the order that is asked for: what is left to draw from is that of an oracle in numpy,
and the tokens are those of llama.cpp's own samplers in that order."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from fakes import FakeEngine
from llama_chain import chain_of

from hogwild_local import Model, Sampler, SamplingParams
from hogwild_local.cli.main import cli
from hogwild_local.engine.native import ffi, lib
from hogwild_local.errors import InvalidArgument
from hogwild_local.evaluation.plan import Plan
from hogwild_local.options import SAMPLERS

Floats = npt.NDArray[np.float64]
N_VOCAB = 3000
AS_CARDS_MEAN_IT = "penalties;temperature;top_k;top_p;min_p"
PENALTIES = {"repeat_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    from models.tiny import TINY
    from models.transformer import write_transformer
    from models.weights import seeded

    path = tmp_path_factory.mktemp("models") / "wide.gguf"
    write_transformer(path, "wide", replace(TINY["llama-bos"], vocabulary=N_VOCAB), "f32", seeded(0))
    with Model(path, n_threads=1) as model:
        yield model


def a_row(seed: int) -> npt.NDArray[np.float32]:
    """Few likely tokens among many."""
    rng = np.random.default_rng(seed)
    row = rng.normal(-12, 1, N_VOCAB)
    row[rng.choice(N_VOCAB, 12, replace=False)] = np.linspace(0, 4, 12)
    return row.astype(np.float32)


def softmax(logits: Floats) -> Floats:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def oracle(row: npt.NDArray[np.float32], params: SamplingParams, said: list[int]) -> Floats:
    """The probability of each token, float64 [n_vocab]. said: the tokens before."""
    logits = row.astype(np.float64)
    for step in params.sampler_order:
        best = np.sort(logits)[::-1]
        if step == "penalties":
            for token, n in Counter(said[-params.penalty_last_n :]).items():
                logit = logits[token]
                logits[token] = logit / params.repeat_penalty if logit > 0 else logit * params.repeat_penalty
                logits[token] -= n * params.frequency_penalty + params.presence_penalty
        elif step == "temperature":
            logits = logits / params.temperature
        elif step == "top_k" and params.top_k > 0:
            logits[logits < best[params.top_k - 1]] = -np.inf
        elif step == "min_p":
            logits[logits < best[0] + np.log(params.min_p)] = -np.inf
        elif step == "top_p":
            n = int(np.searchsorted(np.cumsum(softmax(best)), params.top_p)) + 1
            logits[logits < best[n - 1]] = -np.inf
    return softmax(logits)


ORDERS = [
    ";".join(SAMPLERS),
    AS_CARDS_MEAN_IT,
    "top_p;temperature;top_k",
    "min_p;temperature",
    "temperature;penalties;top_p",
    "top_k;penalties;temperature",
    "top_k",
]


@pytest.mark.parametrize("order", ORDERS)
def test_what_is_left_to_draw_from_is_that_of_the_oracle(order: str, model: Model) -> None:
    params = SamplingParams(temperature=2.5, top_k=9, top_p=0.8, min_p=0.02, sampler_order=order, **PENALTIES)
    said = [int(token) for token in np.argsort(a_row(1))[-6:]]
    expected = oracle(a_row(1), params, said)
    n, counts = 600, np.zeros(N_VOCAB)
    for seed in range(n):
        sampler = Sampler(model, replace(params, seed=seed))
        for token in said:  # the only one that can be chosen, and counts as said
            only = np.full(N_VOCAB, -np.inf, dtype=np.float32)
            only[token] = 1
            assert sampler.sample(only) == token
        counts[sampler.sample(a_row(1))] += 1
        sampler.close()
    assert counts[expected == 0].sum() == 0
    # Likely tokens each, the others together: binomial, and near enough to normal. The seeds are the same each time.
    is_likely = expected > 0.03
    drawn = np.append(counts[is_likely], counts[~is_likely].sum())
    share = np.append(expected[is_likely], expected[~is_likely].sum())
    assert np.all(np.abs(drawn - n * share) <= 4 * np.sqrt(n * share * (1 - share)) + 1e-9)


def test_a_high_temperature_before_top_p_leaves_more_tokens_and_a_low_one_fewer(model: Model) -> None:
    usual, left = ";".join(SAMPLERS), {}
    for name, temperature in (("hot", 2.0), ("cold", 0.5)):
        for order in (AS_CARDS_MEAN_IT, usual):
            params = SamplingParams(temperature, top_k=0, top_p=0.8, min_p=0.001, sampler_order=order)
            drawn = set()
            for seed in range(300):
                sampler = Sampler(model, replace(params, seed=seed))
                drawn.add(sampler.sample(a_row(2)))
                sampler.close()
            left[name, order] = len(drawn)
    assert left["hot", AS_CARDS_MEAN_IT] > left["hot", usual]
    assert left["cold", AS_CARDS_MEAN_IT] < left["cold", usual]


def test_any_order_chooses_the_tokens_of_llama_cpps_samplers_in_that_order(model: Model) -> None:
    chance = random.Random(5)
    rows = [np.random.default_rng(seed).normal(0, 3, N_VOCAB).astype(np.float32) for seed in range(3)]
    for _ in range(60):
        names = chance.sample(SAMPLERS, chance.randint(0, len(SAMPLERS)))
        params = SamplingParams(
            temperature=chance.choice([0.0, 0.5, 1.7]), top_k=chance.choice([0, 1, 30]), seed=chance.randrange(999),
            top_p=chance.choice([0.5, 0.95, 1.0]), min_p=chance.choice([0.0, 0.05]), sampler_order=names,
            logit_bias=chance.choice([{}, {7: 9.0, 8: float("-inf")}]), **chance.choice([{}, PENALTIES]),
        )  # fmt: skip
        sampler = Sampler(model, params)
        with chain_of(model, params) as choose:
            for i in range(9):
                assert sampler.sample(rows[i % 3]) == choose(rows[i % 3]), params


def test_names_are_taken_as_llama_cpp_writes_them() -> None:
    assert SamplingParams().sampler_order == SAMPLERS
    given = SamplingParams(sampler_order="Penalties;temp;top-k;nucleus;minp").sampler_order
    assert given == ("penalties", "temperature", "top_k", "top_p", "min_p")
    assert SamplingParams(sampler_order=["temperature"]).sampler_order == ("temperature",)
    assert SamplingParams(sampler_order="").sampler_order == ()


@pytest.mark.parametrize("order", ["top_k;dry", ["top_k", "top-k"], ["top_k", 3], 3, b"top_k", None, {"top_k": 1}])
def test_an_order_that_cannot_be_had_is_named(order: Any) -> None:
    with pytest.raises(InvalidArgument, match="sampler_order"):
        SamplingParams(sampler_order=order)


@pytest.mark.parametrize(("steps", "fault"), [([0, 5], b"step 1 .* is 5"), ([-1], b"is -1"), ([2, 2], b"twice")])
def test_the_library_refuses_steps_that_there_are_not(steps: list[int], fault: bytes, model: Model) -> None:
    c_steps = ffi.cast("enum hw_sampler_step *", (numbers := ffi.new("int32_t[]", steps)))
    params = ffi.new("struct hw_sampler_params *", {"repeat_penalty": 1.0, "steps": c_steps, "n_steps": len(numbers)})
    out, text = ffi.new("hw_sampler **"), ffi.new("char[]", 256)
    assert lib.hw_sampler_new(model._native._pointer, params, out, text, 256) == lib.HW_ERROR_ARGUMENT
    assert re.search(fault, ffi.string(text))
    assert out[0] == ffi.NULL


def test_the_command_line_takes_an_order() -> None:
    fake = FakeEngine()
    command = ["run", "-m", "m.gguf", "--plain", "-n", "1", "--samplers", AS_CARDS_MEAN_IT, "P"]
    assert CliRunner().invoke(cli, command, obj=fake.engine).exit_code == 0
    assert fake.samplers[0].params.sampler_order == tuple(AS_CARDS_MEAN_IT.split(";"))


def test_an_evaluation_of_before_goes_on_and_another_order_is_another_one() -> None:
    assert "sampler_order" not in Plan().identity()
    assert Plan(sampling=SamplingParams(sampler_order=AS_CARDS_MEAN_IT)).identity() != Plan().identity()
