"""A sampler chooses what llama.cpp's own chain chooses, though it looks at fewer tokens."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from llama_chain import chain_of

from hogwild_local import Model, Sampler, SamplingParams, SharedCache
from hogwild_local.engine.native import DecodeView, ffi, lib
from hogwild_local.errors import InvalidArgument

Rows = npt.NDArray[np.float32]
N_VOCAB = 20_000  # enough that samplers of one pass run on several threads


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    from models.tiny import TINY
    from models.transformer import write_transformer
    from models.weights import seeded

    path = tmp_path_factory.mktemp("models") / "wide.gguf"
    write_transformer(path, "wide", replace(TINY["llama-bos"], vocabulary=N_VOCAB), "f32", seeded(0))
    with Model(path, n_threads=2) as model:
        yield model


def rows(n: int, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).normal(0, 3, (n, N_VOCAB)).astype(np.float32)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0},
        {"top_k": 1},
        {"top_k": 0},
        {"top_k": 3000, "top_p": 1, "min_p": 0},
        {"temperature": 0, "repeat_penalty": 5.0},
        {"repeat_penalty": 1.7, "presence_penalty": 0.5, "frequency_penalty": 0.3},
        {"repeat_penalty": 0.6, "top_k": 5},  # lifts what was said
        {"logit_bias": {7: 30.0, 8: float("-inf"), 19_999: 9.5}},
        {"temperature": 0, "logit_bias": {12: 8.0}, "presence_penalty": 4.0, "penalty_last_n": 3},
        {"logit_bias": dict.fromkeys(range(500), -5.0), "repeat_penalty": 1.3},
    ],
    ids=lambda settings: " ".join(settings) or "default",
)
def test_the_tokens_are_those_of_llama_cpps_chain(settings: dict[str, Any], model: Model) -> None:
    params = SamplingParams(seed=11, **settings)
    sampler = Sampler(model, params)
    # Few different rows, so that what was said comes up again.
    logits = [rows(3)[i % 3] for i in range(12)]
    with chain_of(model, params) as choose:
        assert [sampler.sample(row) for row in logits] == [choose(row) for row in logits]
    sampler.reset()
    with chain_of(model, params) as choose:
        assert [sampler.sample(row) for row in logits] == [choose(row) for row in logits]


def test_equal_logits_are_chosen_from_as_in_the_whole_vocabulary(model: Model) -> None:
    params = SamplingParams(temperature=0, repeat_penalty=2.0)
    logits = np.zeros(N_VOCAB, dtype=np.float32)
    logits[[5, 300, 9000]] = 4.0, 8.0, 4.0
    sampler = Sampler(model, params)
    with chain_of(model, params) as choose:  # 300 is as good as the others then
        assert [sampler.sample(logits) for _ in range(6)] == [choose(logits) for _ in range(6)]


DIGITS = 'root ::= [0-9] [0-9] "." [a-z]+'


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_grammar_holds_and_counts_what_was_drawn(temperature: float, model: Model) -> None:
    sampler = Sampler(model, SamplingParams(seed=3, temperature=temperature, grammar=DIGITS))
    text = b"".join(model.token_bytes(sampler.sample(row)) for row in rows(8)).decode()
    assert text[:2].isdigit()
    assert text[2] == "."
    assert text[3:].isalpha()
    sampler.reset()
    assert model.token_bytes(sampler.sample(rows(1)[0])).isdigit()


def test_a_token_that_the_grammar_allows_is_the_one_drawn_without_it(model: Model) -> None:
    # The best 40 tokens without a grammar are digits here: it refuses none, and is asked about no other.
    digits = [model.tokenize(digit, add_special=False)[-1] for digit in "0123456789"]
    logits = rows(1)[0]
    logits[digits] = np.arange(10) + 30
    free = SamplingParams(seed=5, temperature=3.0)
    with_grammar = Sampler(model, replace(free, grammar="root ::= [0-9]+"))
    without = Sampler(model, free)
    assert [with_grammar.sample(logits) for _ in range(20)] == [without.sample(logits) for _ in range(20)]


@pytest.mark.parametrize("grammar", [DIGITS, "root ::= [à-ÿ]+", "root ::= [^\\x00-\\x7F]+", 'root ::= "é" [a-z€]+'])
def test_a_greedy_grammar_chooses_what_it_chooses_from_all_tokens(grammar: str, model: Model) -> None:
    """Also inside of a character: the tokens here are bytes."""
    params = SamplingParams(temperature=0, grammar=grammar)
    sampler = Sampler(model, params)
    with chain_of(model, params) as choose:
        assert [sampler.sample(row) for row in rows(6)] == [choose(row) for row in rows(6)]


@pytest.mark.parametrize("settings", [{}, {"top_k": 3}, {"logit_bias": {40: 3.0, 17: -50.0}, "presence_penalty": 2.0}])
@pytest.mark.parametrize("grammar", ["root ::= [^0-9]+", "root ::= [0-9a-d]+"])
def test_what_a_grammar_says_of_the_best_is_what_it_says_of_all(
    grammar: str, settings: dict[str, Any], model: Model
) -> None:
    """With a top-p that takes nothing away before top-k, the chain looks at all tokens, and so the grammar is asked."""
    params = SamplingParams(seed=9, grammar=grammar, temperature=2.0, **settings)
    order = ("penalties", "top_p", "top_k", "min_p", "temperature")
    of_all = replace(params, sampler_order=order, top_p=float(np.nextafter(np.float32(1), np.float32(0))), min_p=0)
    samplers = [Sampler(model, each) for each in (replace(params, top_p=1, min_p=0), of_all)]
    for row in rows(60, seed=2):
        # Real models know of few tokens that they may come; of the rest, the used ones come first in this vocabulary.
        row[:384] += 6
        first, second = (sampler.sample(row) for sampler in samplers)
        assert first == second


def test_a_token_that_a_grammar_names_is_asked_about_whatever_its_text_begins_with(model: Model) -> None:
    sampler = Sampler(model, SamplingParams(temperature=0, grammar='root ::= "<" [#<"] <[300]> # <'))
    unlikely = rows(3)
    unlikely[:, 300] = -100
    written = [sampler.sample(row) for row in unlikely]
    assert (model.token_bytes(written[0]), written[2]) == (b"<", 300)


def test_a_grammar_that_allows_nothing_is_an_error(model: Model) -> None:
    sampler = Sampler(model, SamplingParams(seed=1, grammar='root ::= "a"'))
    assert model.token_bytes(sampler.sample(rows(1)[0])) == b"a"
    allowed = sampler.sample(rows(1)[0])  # only the end is allowed now
    assert model.is_eog(allowed)


def test_samplers_on_several_threads_choose_what_they_choose_alone(model: Model) -> None:
    n = 9
    with SharedCache(model, n_ctx=256) as cache:
        alone, together = ([Sampler(model, SamplingParams(seed=seed)) for seed in range(n)] for _ in range(2))
        blocks = [cache.block() for _ in range(n)]
        tokens = list(range(n))
        for _ in range(3):
            views = [
                DecodeView([block._use()], [token], wants_logits=True, sampler=sampler._native)
                for block, token, sampler in zip(blocks, tokens, together, strict=True)
            ]
            got = cache._native.decode(views)
            tokens = [decoded.sampled or 0 for decoded in got]
            assert tokens == [
                sampler.sample(decoded.logits[0])  # type: ignore[index]
                for sampler, decoded in zip(alone, got, strict=True)
            ]


def test_a_sampler_that_can_choose_none_disturbs_no_other_thread(model: Model) -> None:
    with SharedCache(model, n_ctx=64) as cache:
        nothing = SamplingParams(seed=1, logit_bias=dict.fromkeys(range(N_VOCAB), float("-inf")))
        samplers = [Sampler(model, nothing if i % 2 else SamplingParams(temperature=0)) for i in range(6)]
        views = [([cache.block()], [i]) for i in range(6)]
        wanted = [DecodeView([b[0]._use()], t, sampler=s._native) for (b, t), s in zip(views, samplers, strict=True)]
        sampled = [decoded.sampled for decoded in cache._native.decode(wanted)]
        assert sampled[1::2] == [-1] * 3
        assert -1 not in sampled[::2]


def test_caches_with_threads_come_and_go(model: Model) -> None:
    def work() -> None:
        for _ in range(2):
            with SharedCache(model, n_ctx=64) as cache:
                samplers = [Sampler(model, SamplingParams(seed=1)) for _ in range(3)]
                tokens.append(cache.next_tokens([([cache.block()], [7]) for _ in samplers], samplers))

    tokens: list[list[int | None]] = []
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 4
    assert len({token for row in tokens for token in row}) == 1


def test_a_seed_that_means_random_is_refused(model: Model) -> None:
    assert SamplingParams(seed=2**32 - 2).seed == 2**32 - 2
    with pytest.raises(InvalidArgument, match="4294967294"):
        SamplingParams(seed=2**32 - 1)
    params = ffi.new("struct hw_sampler_params *", {"repeat_penalty": 1.0, "seed": 2**32 - 1})
    out, text = ffi.new("hw_sampler **"), ffi.new("char[]", 256)
    assert lib.hw_sampler_new(model._native._pointer, params, out, text, 256) == lib.HW_ERROR_ARGUMENT
    assert b"seed is 4294967295" in ffi.string(text)
    assert out[0] == ffi.NULL
