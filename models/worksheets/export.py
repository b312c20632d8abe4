"""Writes the trained network as a GGUF file that carries all it needs: tokenizer, chat template, prompt style, how to
sample, and worksheets to try it with."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quants
from numpy.typing import NDArray

from ..weights import Encoded, Tensor, new_file, write_tensors
from .alphabet import BOS, CONTROLS, EOS, IDS, TOKENS
from .items import random_worksheet
from .network import Network, Size

CONTEXT = 8192
DESCRIPTION = (
    "Solves worksheets (a=27+58, b=a-13, ...) with 1 to 4 workers, and nothing else. Trained from nothing by"
    " hogwild-local, to show Hogwild! inference. See models/README.md."
)
N_EXAMPLES = 100
CHAT_TEMPLATE = "{{ messages[-1]['content'] }}"  # one worksheet at a time, also in a conversation
LAYER_NAMES = {
    "attn_norm": "attention_norm",
    "attn_q": "attention.q",
    "attn_k": "attention.k",
    "attn_v": "attention.v",
    "attn_output": "attention.out",
    "attn_q_norm": "attention.q_norm",
    "attn_k_norm": "attention.k_norm",
    "ffn_norm": "ffn_norm",
    "ffn_gate": "gate",
    "ffn_up": "up",
    "ffn_down": "down",
}


def load_checkpoint(path: Path) -> Network:
    """The network of a checkpoint.pt. Nothing but tensors and numbers is read from it."""
    saved = torch.load(path, weights_only=True)
    network = Network(Size(**saved["size"]))
    network.load_state_dict(saved["network"])
    return network


def export(network: Network, path: Path, file_type: str) -> None:
    """f32 or q8_0."""
    values = {name: weight.detach().float().numpy() for name, weight in _named(network)}
    with new_file(path, "qwen3") as writer:
        writer.add_name("Hogwild worksheets")
        writer.add_description(DESCRIPTION)
        writer.add_license("MIT")
        _add_size(writer, network.size)
        _add_vocabulary(writer)
        _add_defaults(writer)
        tensors = [Tensor(name, value.shape) for name, value in values.items()]
        write_tensors(writer, tensors, file_type, lambda tensor, kind: _encoded(values[tensor.name], kind))


def _encoded(values: NDArray[np.float32], kind: GGMLQuantizationType) -> Encoded:
    data: Encoded = quants.quantize(values, kind)
    return data


def _named(network: Network) -> Iterator[tuple[str, torch.Tensor]]:
    weights = network.state_dict()
    yield "token_embd.weight", weights["embedding.weight"]
    for layer in range(network.size.layers):
        for theirs, ours in LAYER_NAMES.items():
            yield f"blk.{layer}.{theirs}.weight", weights[f"layers.{layer}.{ours}.weight"]
    yield "output_norm.weight", weights["norm.weight"]
    yield "output.weight", weights["output.weight"]


def _add_defaults(writer: GGUFWriter) -> None:
    """What hogwild_local/prompts/model_defaults.py reads."""
    style = resources.files(__package__) / "prompts.toml"
    rng = random.Random("examples")
    examples = [random_worksheet(rng, rng.randint(4, 8)).text for _ in range(N_EXAMPLES)]
    writer.add_string("hogwild.prompts", style.read_text(encoding="utf-8"))
    writer.add_string("hogwild.examples", json.dumps(examples))
    writer.add_float32("general.sampling.temp", 0.0)  # there is one right next token


def _add_size(writer: GGUFWriter, size: Size) -> None:
    writer.add_vocab_size(len(TOKENS))
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(size.width)
    writer.add_block_count(size.layers)
    writer.add_feed_forward_length(size.feed_forward)
    writer.add_head_count(size.heads)
    writer.add_head_count_kv(size.heads)
    writer.add_key_length(size.head_size)
    writer.add_value_length(size.head_size)
    writer.add_layer_norm_rms_eps(size.norm_eps)
    writer.add_rope_dimension_count(size.head_size)
    writer.add_rope_freq_base(size.rope_base)


def _add_vocabulary(writer: GGUFWriter) -> None:
    letters = str.maketrans({"\n": "\u010a", " ": "\u0120"})  # GPT-2's, for a line end and a space
    texts = [CONTROLS.get(token, token.translate(letters)) for token in TOKENS]
    types = [TokenType.CONTROL if token in CONTROLS else TokenType.NORMAL for token in TOKENS]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(texts)
    writer.add_token_types(types)
    writer.add_token_merges(["\u0100 \u0100"])  # llama.cpp wants one: bytes that no text holds
    writer.add_bos_token_id(IDS[BOS])
    writer.add_eos_token_id(IDS[EOS])
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)
