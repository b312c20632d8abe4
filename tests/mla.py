"""A tiny model with multi-head latent attention (deepseek2): its values are the first numbers of its keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from models.vocabulary import N_TOKENS, add_vocabulary
from models.weights import Tensor, matrix, new_file, norm, seeded, write_tensors

LAYERS, WIDTH, HEADS, FEED_FORWARD = 2, 64, 4, 96
LATENT, ROTATED, PLAIN, VALUE = 48, 16, 16, 16  # a stored key has LATENT + ROTATED numbers
CELL_BYTES = LAYERS * (LATENT + ROTATED) * 4  # of f32


def tensors() -> Iterator[Tensor]:
    yield matrix("token_embd.weight", N_TOKENS, WIDTH)
    for layer in range(LAYERS):
        at = f"blk.{layer}"
        yield norm(f"{at}.attn_norm.weight", WIDTH)
        yield matrix(f"{at}.attn_q.weight", HEADS * (PLAIN + ROTATED), WIDTH)
        yield matrix(f"{at}.attn_kv_a_mqa.weight", LATENT + ROTATED, WIDTH)
        yield norm(f"{at}.attn_kv_a_norm.weight", LATENT)
        yield Tensor(f"{at}.attn_k_b.weight", (HEADS, LATENT, PLAIN), std=0.25)
        yield Tensor(f"{at}.attn_v_b.weight", (HEADS, VALUE, LATENT), std=0.15)
        yield matrix(f"{at}.attn_output.weight", WIDTH, HEADS * VALUE)
        yield norm(f"{at}.ffn_norm.weight", WIDTH)
        yield matrix(f"{at}.ffn_gate.weight", FEED_FORWARD, WIDTH)
        yield matrix(f"{at}.ffn_up.weight", FEED_FORWARD, WIDTH)
        yield matrix(f"{at}.ffn_down.weight", WIDTH, FEED_FORWARD)
    yield norm("output_norm.weight", WIDTH)


def write_mla(path: Path) -> Path:
    with new_file(path, "deepseek2") as writer:
        writer.add_vocab_size(N_TOKENS)
        writer.add_context_length(1024)
        writer.add_embedding_length(WIDTH)
        writer.add_block_count(LAYERS)
        writer.add_leading_dense_block_count(LAYERS)
        writer.add_feed_forward_length(FEED_FORWARD)
        writer.add_expert_feed_forward_length(FEED_FORWARD)
        writer.add_expert_shared_count(1)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(1)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_q_lora_rank(0)
        writer.add_kv_lora_rank(LATENT)
        writer.add_key_length(LATENT + ROTATED)
        writer.add_value_length(LATENT)
        writer.add_key_length_mla(PLAIN + ROTATED)
        writer.add_value_length_mla(VALUE)
        writer.add_rope_dimension_count(ROTATED)
        add_vocabulary(writer, N_TOKENS)
        write_tensors(writer, list(tensors()), "f32", seeded(0))
    return path
