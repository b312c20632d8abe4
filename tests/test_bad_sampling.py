"""Bad settings of samplers and bad logits are refused by name, and change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from isolated import run_isolated

from hogwild_local import Model, Sampler, SamplingParams
from hogwild_local.errors import InvalidArgument

Load = Callable[..., Model]


BAD_PARAMS: list[dict[str, object]] = [
    {"grammar": "root ::= ("}, {"grammar": "other ::= [a]"}, {"grammar": 'root ::= root "a"'}, {"grammar": 5},
    {"grammar": 'root ::= "\ud800"'}, {"grammar": 'root ::= "a"\0'}, {"grammar": 'root ::= "a"{1000000}'},
    {"logit_bias": {10**6: 1.0}}, {"logit_bias": {-1: 1.0}}, {"logit_bias": {1: float("nan")}},
    {"logit_bias": {1: float("inf")}}, {"logit_bias": {1: "x"}}, {"logit_bias": {1.5: 1.0}}, {"logit_bias": [1]},
    {"logit_bias": {True: 1.0}}, {"top_k": 2**40}, {"penalty_last_n": 2**40}, {"penalty_last_n": -1},
]  # fmt: skip


@pytest.mark.parametrize("params", BAD_PARAMS, ids=str)
def test_sampling_params_are_checked_by_name(params: dict[str, object], single: Load) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(params))):
        Sampler(single("llama"), SamplingParams(**params))


def bad_logits(n: int) -> list[tuple[object, str]]:
    nan, plus, nothing = (np.zeros(n, dtype=np.float32) for _ in range(3))
    nan[3], plus[5], nothing[:] = np.nan, np.inf, -np.inf
    return [
        (nan, "token 3"), (plus, "token 5"), (nothing, "not finite"), (np.zeros(n), "float64"),
        (np.zeros(n - 1, dtype=np.float32), "float32"), (np.zeros((1, n), dtype=np.float32), "float32"),
        (np.zeros(2 * n, dtype=np.float32)[::2], "contiguous"), (np.zeros(n, dtype=">f4"), "float32"),
        ([0.0] * n, "list"), (None, "NoneType"),
    ]  # fmt: skip


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_bad_logits_are_refused_and_not_counted(temperature: float, single: Load) -> None:
    model = single("llama")
    samplers = [Sampler(model, SamplingParams(temperature=temperature, repeat_penalty=1.3, seed=3)) for _ in range(2)]
    rng = np.random.default_rng(0)
    for _ in range(5):
        for logits, words in bad_logits(model.n_vocab):
            with pytest.raises(InvalidArgument, match=words):
                samplers[0].sample(logits)
        logits = rng.normal(size=model.n_vocab).astype(np.float32)
        assert samplers[0].sample(logits) == samplers[1].sample(logits)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_where_no_token_is_allowed_none_is_chosen(temperature: float, single: Load) -> None:
    model = single("llama")
    ends = {token: float("-inf") for token in range(model.n_vocab) if model.is_eog(token)}
    zeros = np.zeros(model.n_vocab, dtype=np.float32)
    params = SamplingParams(temperature=temperature, grammar='root ::= "a"', logit_bias=ends)
    sampler = Sampler(model, params)
    assert model.token_bytes(sampler.sample(zeros)) == b"a"
    for _ in range(3):
        with pytest.raises(InvalidArgument, match="none is allowed"):
            sampler.sample(zeros)
    sampler.reset()
    assert model.token_bytes(sampler.sample(zeros)) == b"a"
    everything = SamplingParams(temperature=temperature, logit_bias=dict.fromkeys(range(model.n_vocab), float("-inf")))
    with pytest.raises(InvalidArgument, match="none is allowed"):
        Sampler(model, everything).sample(zeros)


def test_extreme_sampling_never_ends_the_process(tiny_path: Callable[..., Path]) -> None:
    code = """
import sys
import numpy as np
from hogwild_local import Model, Sampler, SamplingParams, errors
model = Model(sys.argv[1], n_threads=1)
zeros = np.zeros(model.n_vocab, dtype=np.float32)
huge = np.full(model.n_vocab, 3e38, dtype=np.float32)
cases = [
    dict(grammar="root ::= " + "(" * 200_000 + '"a"' + ")" * 200_000), dict(grammar='root ::= [z-a]'), dict(grammar=""),
    dict(grammar='root ::= ""'), dict(grammar='root ::= (("a"{2000}){2000}){2000}'), dict(grammar='root ::= ("a"*)*'),
    dict(temperature=1e-44), dict(temperature=1e38), dict(min_p=5.0), dict(top_p=-1.0), dict(top_k=-5),
    dict(top_k=2**31 - 1),
    dict(repeat_penalty=1e38, presence_penalty=1e38, frequency_penalty=1e38), dict(repeat_penalty=1e-38),
    dict(penalty_last_n=2**20, repeat_penalty=1.1), dict(logit_bias={1: -1e38, 2: 1e38}),
]
for case in cases:
    for logits in (zeros, huge, -huge):
        try:
            sampler = Sampler(model, SamplingParams(**case))
            for _ in range(4):
                assert 0 <= sampler.sample(logits) < model.n_vocab
        except errors.InvalidArgument:
            pass
print("alive")
"""
    done = run_isolated(code, tiny_path("llama"))
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr
