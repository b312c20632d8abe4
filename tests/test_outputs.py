"""What a pass gives back: logits of some or all of its tokens, log-probabilities of given ones, sampled tokens."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import Mock

import numpy as np
import numpy.typing as npt
import pytest

from hogwild_local import Model, Sampler, SamplingParams, SharedCache
from hogwild_local.engine import cache as cache_module
from hogwild_local.engine.native import DecodeView
from hogwild_local.errors import BatchTooLarge, CacheFull, Closed, InvalidArgument

Load = Callable[..., Model]
Rows = npt.NDArray[np.float32]
# As in test_equivalence.py: the order of sums, and a table of f16 for GELU.
TOLERANCES = {"gemma2": 5e-3, "grok": 5e-3}
FORMS = ["fused", "ggml", "composed"]


def f32_cache(model: Model, **settings: object) -> SharedCache:
    return SharedCache(model, n_ctx=512, type_k="f32", type_v="f32", **settings)


def tokens_of(model: Model, n: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, model.n_vocab, n)]


def one_by_one(cache: SharedCache, tokens: list[int]) -> Rows:
    block = cache.block()
    return np.concatenate([cache.decode([([block], [token])]) for token in tokens])


def log_softmax(rows: Rows) -> Rows:
    shifted = rows.astype(np.float64) - rows.max(axis=-1, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))).astype(np.float32)


@pytest.mark.parametrize("attention", FORMS)
@pytest.mark.parametrize("name", ["llama", "qwen3-yarn", "gemma2", "maincoder", "grok"])
def test_all_logits_are_those_of_one_token_after_the_other(name: str, attention: str, single: Load) -> None:
    model = single(name)
    tokens = tokens_of(model, 37)
    with f32_cache(model, attention=attention) as cache:
        wanted = one_by_one(cache, tokens)
        [rows] = cache.decode([([cache.block()], tokens)], all_logits=True)
    assert rows.shape == (37, model.n_vocab)
    assert rows.dtype == np.float32
    assert np.abs(rows - wanted).max() <= TOLERANCES.get(name, 1e-3)


# Sizes on both sides of what a graph is rounded up to: of tokens (8, 12, 32, 64) and of outputs.
@pytest.mark.parametrize("n_outputs", [0, 1, 2, 7, 9, 13, 33])
@pytest.mark.parametrize("attention", FORMS)
def test_outputs_of_several_views_are_those_of_each_alone(attention: str, n_outputs: int, single: Load) -> None:
    model = single("llama")
    sizes = [33, 1, 9, 4]
    with f32_cache(model, attention=attention) as cache:
        views = [([cache.block()], tokens_of(model, n, seed=n)) for n in sizes]
        wanted = [one_by_one(cache, tokens)[max(0, len(tokens) - n_outputs) :] for _, tokens in views]
        asked = [DecodeView([b[0]._use()], t, min(len(t), n_outputs), wants_logits=True) for b, t in views]
        got = cache._native.decode(asked)
    for rows, (logits, logprobs, sampled, *_) in zip(wanted, got, strict=True):
        assert logits is not None
        assert logits.shape == (len(rows), model.n_vocab)
        assert logprobs is sampled is None
        assert np.abs(logits - rows).max(initial=0) <= 1e-3


@pytest.mark.parametrize("attention", FORMS)
def test_logprobs_are_the_log_softmax_of_the_logits(attention: str, single: Load) -> None:
    model = single("qwen3")
    tokens, other = tokens_of(model, 21), tokens_of(model, 6, seed=1)
    with f32_cache(model, attention=attention) as cache:
        rows = cache.decode([([cache.block()], tokens), ([cache.block()], other)], all_logits=True)
        views = [([cache.block()], tokens), ([cache.block()], other)]
        first, last = cache.logprobs(views, [[*tokens[1:], 3], other[:2]])
        assert [len(blocks[-1]) for blocks, _ in views] == [21, 6]
    np.testing.assert_allclose(first, log_softmax(rows[0])[range(21), [*tokens[1:], 3]], atol=1e-4)
    np.testing.assert_allclose(last, log_softmax(rows[1][4:])[range(2), other[:2]], atol=1e-4)


def test_a_view_without_targets_is_fed_and_has_none(single: Load) -> None:
    model = single("llama")
    with f32_cache(model) as cache:
        a, b = cache.block(), cache.block()
        none, one = cache.logprobs([([a], [1, 2]), ([b], [3])], [[], [4]])
        assert (len(none), len(one), len(a), len(b)) == (0, 1, 2, 1)


def test_logprobs_of_large_logits_are_finite(single: Load) -> None:
    # What exp() of a logit without the largest taken off would make of them is inf.
    model = single("llama")
    with f32_cache(model) as cache:
        [scores] = cache.logprobs([([cache.block()], [5] * model.n_vocab)], [list(range(model.n_vocab))])
    assert np.isfinite(scores).all()
    assert (scores < 0).all()


def test_a_long_view_is_fed_in_chunks_and_has_all_its_outputs(single: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    model = single("llama")
    tokens = tokens_of(model, 50)
    with f32_cache(model, n_batch=64) as cache:
        [wanted] = cache.decode([([cache.block()], tokens)], all_logits=True)
        [scores] = cache.logprobs([([cache.block()], tokens)], [tokens[10:]])
    for n_batch, most_logits in ((16, 2**25), (64, 7 * model.n_vocab), (64, 1)):
        monkeypatch.setattr(cache_module, "MOST_LOGITS", most_logits)
        with f32_cache(model, n_batch=n_batch) as cache:
            progress = Mock()
            [rows] = cache.decode([([cache.block()], tokens)], progress, all_logits=True)
            [again] = cache.logprobs([([cache.block()], tokens)], [tokens[10:]])
        assert progress.call_count == -(-50 // min(n_batch, max(1, most_logits // model.n_vocab))) - 1
        assert np.abs(rows - wanted).max() <= 1e-3
        np.testing.assert_allclose(again, scores, atol=1e-3)


def test_a_view_of_all_outputs_that_is_cancelled_leaves_nothing(single: Load) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with f32_cache(single("llama"), n_batch=8) as cache:
        block = cache.block()
        with pytest.raises(KeyboardInterrupt):
            cache.decode([([block], [1] * 20)], stop, all_logits=True)
        assert (len(block), cache.n_free) == (0, 512)


def test_samplers_of_a_pass_choose_as_they_do_alone(single: Load) -> None:
    model = single("llama")
    params = [SamplingParams(seed=1), SamplingParams(temperature=0), SamplingParams(seed=3, repeat_penalty=1.4)]
    with f32_cache(model) as cache:
        alone, together = ([Sampler(model, each) for each in params] for _ in range(2))
        blocks = [cache.block() for _ in params]
        wanted, got, tokens = [], [], [5, 6, 7]
        for _ in range(8):
            rows = cache.decode([([block], [token]) for block, token in zip(blocks, tokens, strict=True)])
            tokens = [sampler.sample(row) for sampler, row in zip(alone, rows, strict=True)]
            wanted.append(tokens)
        for block in blocks:
            block.clear()
        tokens = [5, 6, 7]
        for _ in range(8):
            views = [([block], [token]) for block, token in zip(blocks, tokens, strict=True)]
            tokens = [token for token in cache.next_tokens(views, together) if token is not None]
            got.append(tokens)
    assert got == wanted


def test_a_sampler_that_can_choose_none_leaves_the_others_their_tokens(single: Load) -> None:
    model = single("llama")
    with f32_cache(model) as cache:
        nothing = Sampler(model, SamplingParams(logit_bias=dict.fromkeys(range(model.n_vocab), float("-inf"))))
        greedy = Sampler(model, SamplingParams(temperature=0))
        blocks = [cache.block() for _ in range(3)]
        ids = [block._use() for block in blocks]
        views = [
            DecodeView([ids[0]], [1, 2], sampler=nothing._native),
            DecodeView([ids[1]], [3], wants_logits=True, sampler=greedy._native),
            DecodeView([ids[2]], [4], 0),
        ]
        got = cache._native.decode(views)
        assert [decoded.sampled for decoded in got] == [-1, got[1].logits[0].argmax(), None]  # type: ignore[index]
        assert cache._native.blocks() == dict(zip(ids, [2, 1, 1], strict=True))


def test_wrong_outputs_are_refused_before_anything_is_fed(single: Load) -> None:
    model = single("llama")
    with f32_cache(model, n_batch=64) as cache, SharedCache(model, n_ctx=64) as other:
        block, second = cache.block(), cache.block()
        one, two = block._use(), second._use()
        sampler = Sampler(model, SamplingParams(seed=1))
        for views, fault in [
            ([DecodeView([one], [1], 2)], "wants outputs of 2 tokens and feeds 1"),
            ([DecodeView([one], [1], -1)], "wants outputs of -1"),
            ([DecodeView([one], [1], 0, sampler=sampler._native)], "needs the last token's logits"),
            ([DecodeView([one], [1], targets=[model.n_vocab])], "target 0 of view 0 is"),
            ([DecodeView([one], [1], targets=[-1])], "target 0 of view 0 is -1"),
            ([DecodeView([one], [1, 2], 2, targets=[1])], "1 targets for 2 outputs"),
            ([DecodeView([b], [1], sampler=sampler._native) for b in (one, two)], "that of another view too"),
        ]:
            with pytest.raises(InvalidArgument, match=fault):
                cache._native.decode(views)
        for call, fault in [
            (lambda: cache.logprobs([([block], [1])], []), "of one length"),
            (lambda: cache.logprobs([([block], [1])], [[1, 2]]), "2 targets for a view of 1"),
            (lambda: cache.logprobs([([block], [1])], [[model.n_vocab]]), "out of range"),
            (lambda: cache.next_tokens([([block], [1])], [object()]), "is not a sampler"),  # type: ignore[list-item]
            (lambda: cache.logprobs([([other.block()], [1])], [[1]]), "of another cache"),
        ]:
            with pytest.raises(InvalidArgument, match=fault):
                call()
        with pytest.raises(BatchTooLarge):
            cache.decode([([block], [1] * 33), ([second], [1] * 33)], all_logits=True)
        with pytest.raises(CacheFull):
            cache.decode([([block], [1] * 513)], all_logits=True)
        sampler.close()
        with pytest.raises(Closed):
            cache._native.decode([DecodeView([one], [1], sampler=sampler._native)])
        assert (len(block), len(second), cache.n_free) == (0, 0, 512)
