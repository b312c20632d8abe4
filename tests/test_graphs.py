"""Graphs of llama.cpp that differ from others: outputs of all tokens, learned positions, numbers beyond f16."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter

from hogwild_local import Model, SharedCache
from hogwild_local.engine.node_times import timed_nodes
from hogwild_local.errors import InvalidArgument
from hogwild_local.options import AttentionForm
from models.foreign import layer_norm
from models.tiny import TINY
from models.transformer import Shape, write_transformer
from models.vocabulary import N_TOKENS, add_vocabulary
from models.weights import Encoded, Tensor, matrix, new_file, norm, seeded, write_tensors

WIDTH, FEED_FORWARD, LAYERS, CONTEXT = 64, 96, 2, 40
FORMS = ["fused", "ggml", "composed"]


def cogvlm(writer: GGUFWriter) -> Iterator[Tensor]:
    """Its graph computes the logits of all tokens: it never asks which are wanted."""
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(WIDTH // 4)
    yield matrix("token_embd.weight", N_TOKENS, WIDTH)
    yield norm("output_norm.weight", WIDTH)
    for layer in range(LAYERS):
        at = f"blk.{layer}"
        yield norm(f"{at}.attn_norm.weight", WIDTH)
        yield norm(f"{at}.ffn_norm.weight", WIDTH)
        for kind, prefix in (("", "ffn_"), ("vis_", "vis_")):
            yield matrix(f"{at}.{kind}attn_qkv.weight", 3 * WIDTH, WIDTH)
            yield matrix(f"{at}.{kind}attn_output.weight", WIDTH, WIDTH)
            yield matrix(f"{at}.{prefix}gate.weight", FEED_FORWARD, WIDTH)
            yield matrix(f"{at}.{prefix}up.weight", FEED_FORWARD, WIDTH)
            yield matrix(f"{at}.{prefix}down.weight", WIDTH, FEED_FORWARD)


def mpt(writer: GGUFWriter) -> Iterator[Tensor]:
    """A table of learned positions, and distances by ALiBi."""
    writer.add_layer_norm_eps(1e-6)
    writer.add_max_alibi_bias(8.0)
    yield matrix("token_embd.weight", N_TOKENS, WIDTH)
    yield matrix("position_embd.weight", CONTEXT, WIDTH)
    yield from layer_norm("output_norm", WIDTH)
    for layer in range(LAYERS):
        at = f"blk.{layer}"
        yield from layer_norm(f"{at}.attn_norm", WIDTH)
        yield from layer_norm(f"{at}.ffn_norm", WIDTH)
        yield matrix(f"{at}.attn_qkv.weight", 3 * WIDTH, WIDTH)
        yield matrix(f"{at}.attn_output.weight", WIDTH, WIDTH)
        yield matrix(f"{at}.ffn_up.weight", FEED_FORWARD, WIDTH)
        yield matrix(f"{at}.ffn_down.weight", WIDTH, FEED_FORWARD)


def load(path: Path, arch: str, tensors: Callable[[GGUFWriter], Iterator[Tensor]]) -> Model:
    with new_file(path, arch) as writer:
        writer.add_vocab_size(N_TOKENS)
        writer.add_context_length(CONTEXT)
        writer.add_embedding_length(WIDTH)
        writer.add_block_count(LAYERS)
        writer.add_feed_forward_length(FEED_FORWARD)
        writer.add_head_count(4)
        writer.add_head_count_kv(4)
        add_vocabulary(writer)
        write_tensors(writer, list(tensors(writer)), "f32", seeded(0))
    return Model(path, n_threads=1)


def test_rows_are_those_of_the_views_where_a_graph_computes_all_tokens(tmp_path: Path) -> None:
    # 10 tokens and 9 outputs are both rounded up to 12.
    tokens = [[7, 8], *([9 + i] for i in range(8))]
    with load(tmp_path / "cogvlm", "cogvlm", cogvlm) as model, SharedCache(model, 256, type_k="f32") as cache:
        together = cache.decode([([cache.block()], own) for own in tokens])
        alone = np.concatenate([cache.decode([([cache.block()], own)]) for own in tokens])
    assert np.abs(together - alone).max() <= 1e-3


@pytest.mark.parametrize("attention", FORMS)
def test_a_view_beyond_the_learned_positions_is_refused_and_the_cache_stands(attention: str, tmp_path: Path) -> None:
    with load(tmp_path / "mpt", "mpt", mpt) as model, SharedCache(model, 256, attention=attention) as cache:
        a, b = cache.block("a"), cache.block("b")
        cache.decode([([a], list(range(CONTEXT - 1)))])
        cache.decode([([a, b], [1])])
        with pytest.raises(InvalidArgument, match=f"context of {CONTEXT} tokens"):
            cache.decode([([a, b], [2])])
        assert (len(a), len(b)) == (CONTEXT - 1, 1)
        assert np.isfinite(cache.decode([([b], [2])])).all()


LOUD = 200  # a token whose values do not fit f16


def write_loud(path: Path) -> None:
    shape = Shape("llama", 2, 64, 2, 1, 32, 96)
    plain = seeded(0)

    def fill(tensor: Tensor, kind: GGMLQuantizationType) -> Encoded:
        values = plain(tensor, kind)
        if tensor.name == "token_embd.weight":
            values[:, 0] = 0
            values[LOUD] = 0
            values[LOUD, 0] = 1.0
        elif tensor.name == "blk.0.attn_v.weight" or tensor.name == "blk.0.attn_k.weight":
            values[:, 0] *= 1e6
        return values

    write_transformer(path, "loud", shape, "f32", fill)


@pytest.mark.parametrize("cache_type", ["f16", "q8_0", "q4_1"])
@pytest.mark.parametrize("attention", FORMS)
def test_values_beyond_f16_of_a_freed_block_reach_no_other(attention: str, cache_type: str, tmp_path: Path) -> None:
    write_loud(tmp_path / "loud")
    with Model(tmp_path / "loud", n_threads=1) as model:

        def rows(before: list[int]) -> np.ndarray:
            with SharedCache(model, 512, attention=attention, type_k=cache_type, type_v=cache_type) as cache:
                freed, block = cache.block(), cache.block()
                cache.decode([([freed], before)])
                freed.free()
                return np.concatenate([cache.decode([([block], [token])]) for token in range(20)])

        loud = rows([LOUD] * 40)
        assert np.isfinite(loud).all()
        assert np.abs(loud - rows([5] * 40)).max() <= 1e-3


@pytest.mark.parametrize("attention", FORMS)
def test_passes_whose_nodes_are_timed_give_the_same_logits(
    single: Callable[..., Model], attention: AttentionForm
) -> None:
    shape = TINY["qwen3"]
    with SharedCache(single("qwen3"), 64, attention=attention) as cache:
        block = cache.block("block")
        wanted = cache.decode([([block], [1, 2, 3])])
        with timed_nodes(cache) as times:
            for _ in range(2):
                block.clear()
                assert (cache.decode([([block], [1, 2, 3])]) == wanted).all()
        with timed_nodes(cache) as nothing:
            pass
    assert nothing == []
    microseconds = [time.microseconds for time in times]
    assert microseconds == sorted(microseconds, reverse=True)
    down = next(time for time in times if time.kind == f"MUL_MAT f32 [{shape.feed_forward}, {shape.width}]")
    assert down.count == 2 * shape.layers
