"""Models that llama.cpp loads and the engine must refuse: nothing is generated with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from gguf import GGUFWriter

from .vocabulary import N_TOKENS, add_vocabulary
from .weights import Tensor, matrix, new_file, norm, seeded, write_tensors

LAYERS, WIDTH, CONTEXT = 2, 64, 512


def bert(writer: GGUFWriter) -> Iterator[Tensor]:
    """An encoder: every token sees every other, nothing is generated."""
    feed_forward = 96
    writer.add_head_count(4)
    writer.add_feed_forward_length(feed_forward)
    writer.add_layer_norm_eps(1e-6)
    writer.add_causal_attention(False)
    writer.add_token_type_count(2)
    yield matrix("token_embd.weight", N_TOKENS, WIDTH)
    yield matrix("position_embd.weight", CONTEXT, WIDTH)
    yield matrix("token_types.weight", 2, WIDTH)
    yield from layer_norm("token_embd_norm", WIDTH)
    for layer in range(LAYERS):
        at = f"blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield matrix(f"{at}.{part}.weight", WIDTH, WIDTH)
        yield matrix(f"{at}.ffn_up.weight", feed_forward, WIDTH)
        yield matrix(f"{at}.ffn_down.weight", WIDTH, feed_forward)
        yield from layer_norm(f"{at}.attn_output_norm", WIDTH)
        yield from layer_norm(f"{at}.layer_output_norm", WIDTH)


def layer_norm(name: str, size: int) -> Iterator[Tensor]:
    yield norm(f"{name}.weight", size)
    yield Tensor(f"{name}.bias", (size,), std=0.1)


FOREIGN: dict[str, Callable[[GGUFWriter], Iterator[Tensor]]] = {"bert": bert}


def write_foreign(path: Path, name: str, *, seed: int = 0) -> None:
    with new_file(path, name) as writer:
        writer.add_name(f"hogwild foreign {name}")
        writer.add_vocab_size(N_TOKENS)
        writer.add_context_length(CONTEXT)
        writer.add_embedding_length(WIDTH)
        writer.add_block_count(LAYERS)
        add_vocabulary(writer)
        write_tensors(writer, list(FOREIGN[name](writer)), "f32", seeded(seed))
