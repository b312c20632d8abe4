"""Models with recurrent layers: lfm2 has short convolutions, granitehybrid Mamba-2, mamba nothing but Mamba-1,
qwen35 gated delta nets, and minimax-01 lightning attention. models/rwkv.py has others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gguf import GGUFWriter

from .transformer import ATTENTION_GAIN, EMBEDDING_GAIN, LOGIT_GAIN
from .vocabulary import N_TOKENS, add_vocabulary, used_tokens
from .weights import Fill, Tensor, add_sizes, matrix, new_file, norm, write_tensors


@dataclass(frozen=True)
class Hybrid:
    arch: str
    layers: int
    width: int
    heads: int = 0
    kv_heads: int = 0
    head_size: int = 0
    feed_forward: int = 0
    every: int = 0  # so many layers end in one with attention; 0: none has
    convolution: int = 4  # inputs that an output sees
    inner: int = 0  # channels of a recurrent layer: its heads times their size
    state: int = 0  # numbers of state for each of them; qwen35: size of a key
    recurrent_heads: int = 0  # mamba: rank of its time steps
    groups: int = 0  # heads of what is written and read
    experts: int = 0  # minimax-01: of which two compute
    vocabulary: int = N_TOKENS
    context: int = 8192

    def __post_init__(self) -> None:
        if self.arch not in RECURRENT:
            raise ValueError(f"unknown architecture {self.arch!r}")

    def attends(self, layer: int) -> bool:
        return self.every > 0 and (layer + 1) % self.every == 0


def kernel(name: str, channels: int, n: int) -> Tensor:
    return Tensor(name, (channels, n), std=0.5, is_f32=True)


def short_convolution(shape: Hybrid, at: str) -> Iterator[Tensor]:
    yield matrix(f"{at}.shortconv.in_proj.weight", 3 * shape.width, shape.width)
    yield kernel(f"{at}.shortconv.conv.weight", shape.width, shape.convolution)
    yield matrix(f"{at}.shortconv.out_proj.weight", shape.width, shape.width)


def mamba_2(shape: Hybrid, at: str) -> Iterator[Tensor]:
    heads, mixed = shape.recurrent_heads, shape.inner + 2 * shape.groups * shape.state
    yield matrix(f"{at}.ssm_in.weight", shape.inner + mixed + heads, shape.width)
    yield kernel(f"{at}.ssm_conv1d.weight", mixed, shape.convolution)
    yield Tensor(f"{at}.ssm_conv1d.bias", (mixed,), std=0.1)
    yield Tensor(f"{at}.ssm_dt.bias", (heads,), std=1.0, mean=-2.0)
    yield Tensor(f"{at}.ssm_a", (heads, 1), std=0.2, mean=-1.0, is_f32=True)  # negative: the state decays
    yield Tensor(f"{at}.ssm_d", (heads, 1), std=0.1, mean=1.0, is_f32=True)
    yield Tensor(f"{at}.ssm_norm.weight", (shape.groups, shape.inner // shape.groups), std=0.1, mean=1.0, is_f32=True)
    yield matrix(f"{at}.ssm_out.weight", shape.width, shape.inner)


def mamba_1(shape: Hybrid, at: str) -> Iterator[Tensor]:
    rank, state = shape.recurrent_heads, shape.state
    yield matrix(f"{at}.ssm_in.weight", 2 * shape.inner, shape.width)
    yield kernel(f"{at}.ssm_conv1d.weight", shape.inner, shape.convolution)
    yield Tensor(f"{at}.ssm_conv1d.bias", (shape.inner,), std=0.1)
    yield matrix(f"{at}.ssm_x.weight", rank + 2 * state, shape.inner)
    yield matrix(f"{at}.ssm_dt.weight", shape.inner, rank)
    yield Tensor(f"{at}.ssm_dt.bias", (shape.inner,), std=1.0, mean=-2.0)
    yield Tensor(f"{at}.ssm_a", (shape.inner, state), std=0.2, mean=-1.0, is_f32=True)
    yield norm(f"{at}.ssm_d", shape.inner)
    yield matrix(f"{at}.ssm_out.weight", shape.width, shape.inner)


def delta_net(shape: Hybrid, at: str) -> Iterator[Tensor]:
    heads, mixed = shape.recurrent_heads, shape.inner + 2 * shape.groups * shape.state
    yield matrix(f"{at}.attn_qkv.weight", mixed, shape.width)
    yield matrix(f"{at}.attn_gate.weight", shape.inner, shape.width)
    yield kernel(f"{at}.ssm_conv1d.weight", mixed, shape.convolution)
    yield Tensor(f"{at}.ssm_dt.bias", (heads,), std=1.0, mean=-2.0)
    yield Tensor(f"{at}.ssm_a", (heads,), std=0.2, mean=-1.0)
    yield matrix(f"{at}.ssm_beta.weight", heads, shape.width)
    yield matrix(f"{at}.ssm_alpha.weight", heads, shape.width)
    yield norm(f"{at}.ssm_norm.weight", shape.state)
    yield matrix(f"{at}.ssm_out.weight", shape.width, shape.inner)


def lightning(shape: Hybrid, at: str) -> Iterator[Tensor]:
    inner = shape.heads * shape.head_size
    yield norm(f"{at}.attn_norm_2.weight", inner)
    yield matrix(f"{at}.attn_qkv.weight", 3 * inner, shape.width, 2.0)
    yield matrix(f"{at}.attn_gate.weight", inner, shape.width)
    yield matrix(f"{at}.attn_output.weight", shape.width, inner, 1.5)


RECURRENT: dict[str, Callable[[Hybrid, str], Iterator[Tensor]]] = {
    "lfm2": short_convolution,
    "granitehybrid": mamba_2,
    "mamba": mamba_1,
    "qwen35": delta_net,
    "minimax-01": lightning,
}


def attention(shape: Hybrid, at: str) -> Iterator[Tensor]:
    query, kv = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    is_normed = shape.arch in ("lfm2", "qwen35")
    gain = 1.0 if is_normed else ATTENTION_GAIN
    gated = 2 if shape.arch == "qwen35" else 1
    yield matrix(f"{at}.attn_q.weight", gated * query, shape.width, gain)
    yield matrix(f"{at}.attn_k.weight", kv, shape.width, gain)
    yield matrix(f"{at}.attn_v.weight", kv, shape.width)
    yield matrix(f"{at}.attn_output.weight", shape.width, query, 1.5)
    if is_normed:
        yield norm(f"{at}.attn_q_norm.weight", shape.head_size, ATTENTION_GAIN)
        yield norm(f"{at}.attn_k_norm.weight", shape.head_size, ATTENTION_GAIN)


def feed_forward(shape: Hybrid, at: str) -> Iterator[Tensor]:
    matrices = {
        "gate": (shape.feed_forward, shape.width),
        "up": (shape.feed_forward, shape.width),
        "down": (shape.width, shape.feed_forward),
    }
    if shape.experts:
        yield matrix(f"{at}_gate_inp.weight", shape.experts, shape.width)
    for name, (rows, columns) in matrices.items():
        if shape.experts:
            yield Tensor(f"{at}_{name}_exps.weight", (shape.experts, rows, columns), std=columns**-0.5)
        else:
            yield matrix(f"{at}_{name}.weight", rows, columns)


def tensors_of(shape: Hybrid) -> Iterator[Tensor]:
    yield matrix("token_embd.weight", shape.vocabulary, shape.width, EMBEDDING_GAIN, used_rows=used_tokens())
    for layer in range(shape.layers):
        at = f"blk.{layer}"
        yield norm(f"{at}.attn_norm.weight", shape.width)
        yield from attention(shape, at) if shape.attends(layer) else RECURRENT[shape.arch](shape, at)
        if shape.feed_forward:
            yield norm(f"{at}.{'post_attention' if shape.arch == 'qwen35' else 'ffn'}_norm.weight", shape.width)
            yield from feed_forward(shape, f"{at}.ffn")
    last = "token_embd_norm" if shape.arch == "lfm2" else "output_norm"
    yield norm(f"{last}.weight", shape.width, LOGIT_GAIN / EMBEDDING_GAIN)


def write_hybrid(path: Path, name: str, shape: Hybrid, file_type: str, fill: Fill) -> None:
    with new_file(path, shape.arch) as writer:
        writer.add_name(name)
        add_shape(writer, shape)
        add_vocabulary(writer, shape.vocabulary, bos=False)
        write_tensors(writer, list(tensors_of(shape)), file_type, fill)


def add_shape(writer: GGUFWriter, shape: Hybrid) -> None:
    add_sizes(writer, shape)
    writer.add_head_count(shape.heads)
    writer.add_layer_norm_rms_eps(1e-6)
    if shape.every:
        writer.add_key_length(shape.head_size)
        writer.add_value_length(shape.head_size)
        writer.add_rope_dimension_count(shape.head_size)
        writer.add_rope_freq_base(1e6)
        if shape.arch in ("qwen35", "minimax-01"):
            writer.add_head_count_kv(shape.kv_heads)
            writer.add_full_attention_interval(shape.every)
        else:
            attends = map(shape.attends, range(shape.layers))
            writer.add_head_count_kv([shape.kv_heads if yes else 0 for yes in attends])
    if shape.arch == "qwen35":
        half = shape.head_size // 2
        writer.add_rope_dimension_sections([half - 2 * (half // 3), half // 3, half // 3, 0])
    if shape.arch == "lfm2":
        writer.add_shortconv_l_cache(shape.convolution)
        return
    if shape.arch == "minimax-01":
        writer.add_residual_scale(1.5)
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(2)
        return
    writer.add_ssm_conv_kernel(shape.convolution)
    writer.add_ssm_inner_size(shape.inner)
    writer.add_ssm_state_size(shape.state)
    writer.add_ssm_time_step_rank(shape.recurrent_heads)
    writer.add_ssm_group_count(shape.groups)
