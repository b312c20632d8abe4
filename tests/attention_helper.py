"""Calls the attention kernel on numpy arrays, and computes the same in float64 for comparison."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from gguf import GGMLQuantizationType, quants

from hogwild_local.engine import native as _native

ROPES = {"none": 0, "adjacent": 1, "halves": 2}
TYPES = {
    "f32": GGMLQuantizationType.F32,
    "f16": GGMLQuantizationType.F16,
    "q8_0": GGMLQuantizationType.Q8_0,
    "q5_0": GGMLQuantizationType.Q5_0,
    "q5_1": GGMLQuantizationType.Q5_1,
    "q4_0": GGMLQuantizationType.Q4_0,
    "q4_1": GGMLQuantizationType.Q4_1,
    "bf16": GGMLQuantizationType.BF16,
}


def isas() -> list[str]:
    """The kernels that this CPU can run, best first, "plain" last."""
    return _native.attention_isas()


@dataclass
class Case:
    """One layer of one pass. k, v: (KV heads, cells, d); q: (rows, heads, d_k); angles: (rows, n_rot).

    blocks: (cell, n_cells); pairs: one list per block of (token, query, angle, first, last, distance).
    """

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    blocks: list[tuple[int, int]]
    pairs: list[list[tuple[int, int, int, int, int, int]]]
    n_tokens: int
    rope: str = "none"
    angles: np.ndarray = field(default_factory=lambda: np.zeros((1, 0), np.float32))
    k_type: str = "f32"
    v_type: str = "f32"
    scale: float = 1.0
    softcap: float = 0.0
    max_bias: float = 0.0
    sinks: np.ndarray | None = None
    hadamard: int = 0

    def stored(self, name: str) -> np.ndarray:
        """Keys or values as the cache holds them: (KV heads, cells, bytes)."""
        rows = np.ascontiguousarray(getattr(self, name), np.float32)
        kind = getattr(self, f"{name}_type")
        if kind == "f16":
            with np.errstate(over="ignore"):
                return rows.astype(np.float16).view(np.uint8)
        return rows.view(np.uint8) if kind == "f32" else quants.quantize(rows, TYPES[kind]).view(np.uint8)

    def loaded(self, name: str) -> np.ndarray:
        """Keys or values that the cache's bytes stand for, in float64."""
        kind = getattr(self, f"{name}_type")
        stored = self.stored(name)
        if kind in ("f16", "f32"):
            return stored.view(np.float16 if kind == "f16" else np.float32).astype(np.float64)
        return quants.dequantize(stored, TYPES[kind]).astype(np.float64)


GUARD = 32  # floats before and after the output


def arguments(case: Case, keep: list):
    """The C struct of a case; `keep` holds what it points to, keep[0] the output with its guards."""
    ffi = _native.ffi
    args = ffi.new("struct hw_attention_args *")
    n_head, d_v = case.q.shape[1], case.v.shape[2]
    keep.append(np.full(case.n_tokens * n_head * d_v + 2 * GUARD, np.nan, np.float32))

    def pointer(array: np.ndarray | None, kind: str = "float"):
        keep.append(array)
        return ffi.NULL if array is None else ffi.cast(f"{kind} *", array.ctypes.data)

    args.n_tokens, args.n_head, args.n_head_kv = case.n_tokens, n_head, case.k.shape[0]
    args.d_k, args.d_v, args.n_cells = case.k.shape[2], d_v, case.k.shape[1]
    args.scale, args.softcap, args.max_bias = case.scale, case.softcap, case.max_bias
    args.sinks = pointer(case.sinks)
    q = np.ascontiguousarray(case.q, np.float32)
    args.q, args.n_query_rows = pointer(q), q.shape[0]
    args.q_nb_row, args.q_nb_head = q.strides[0], q.strides[1]
    args.rope = ROPES[case.rope]
    angles = np.ascontiguousarray(case.angles, np.float32)
    args.n_rot, args.n_angle_rows = angles.shape[1], angles.shape[0]
    args.angles, args.angles_nb_row = pointer(angles), angles.strides[0]
    args.hadamard = case.hadamard
    for name in "kv":
        stored = case.stored(name)
        setattr(args, name, pointer(stored, "void"))
        setattr(args, f"{name}_type", int(TYPES[getattr(case, f"{name}_type")]))
        setattr(args, f"{name}_nb_cell", stored.strides[1])
        setattr(args, f"{name}_nb_head", stored.strides[0])
    counts = [len(pairs) for pairs in case.pairs]
    first = np.concatenate([[0], np.cumsum(counts)]).astype(int)
    rows = [(*block, start, n) for block, start, n in zip(case.blocks, first, counts, strict=False)]
    args.blocks = pointer(np.array(rows, np.int32).reshape(-1, 4), "int32_t")
    args.pairs = pointer(np.array([pair for pairs in case.pairs for pair in pairs], np.int32).reshape(-1, 6), "int32_t")
    args.n_blocks, args.n_pairs = len(case.blocks), sum(counts)
    args.out = ffi.cast("float *", keep[0].ctypes.data) + GUARD
    return args


def attention(case: Case, isa: str = "auto", n_threads: int = 2, n_runs: int = 1) -> np.ndarray:
    """What the kernel gives: (tokens, heads, d_v). Also checks that nothing around the output was written."""
    keep: list = []
    args = arguments(case, keep)
    args.n_runs = n_runs
    error = _native.attention(args, isa, n_threads)
    if error:
        raise ValueError(f"hw_attention: error {error}")
    out = keep[0]
    assert np.isnan(np.concatenate([out[:GUARD], out[-GUARD:]])).all(), "wrote outside of the output"
    return out[GUARD:-GUARD].reshape(case.n_tokens, case.q.shape[1], case.v.shape[2])


def rotated(q: np.ndarray, table: np.ndarray, rope: str) -> np.ndarray:
    """q: (heads, d_k), table: (n_rot,)."""
    out, n_rot = q.copy(), len(table)
    if rope == "none" or n_rot == 0:
        return out
    even = np.arange(0, n_rot, 2) if rope == "adjacent" else np.arange(n_rot // 2)
    odd = even + (1 if rope == "adjacent" else n_rot // 2)
    c, s = table[even], table[odd]
    out[:, even] = q[:, even] * c - q[:, odd] * s
    out[:, odd] = q[:, even] * s + q[:, odd] * c
    return out


def times_hadamard(q: np.ndarray, n: int) -> np.ndarray:
    """q: (heads, d_k), n numbers at a time multiplied by Sylvester's matrix, made orthonormal."""
    if n == 0:
        return q
    matrix = np.ones((1, 1))
    while len(matrix) < n:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return (q.reshape(-1, n) @ matrix / np.sqrt(n)).reshape(q.shape)


def slopes(max_bias: float, n_head: int) -> np.ndarray:
    """ALiBi's, after the paper's recipe for head counts that are no power of two."""
    n = 2 ** int(np.floor(np.log2(n_head)))
    head = np.arange(n_head)
    power = np.where(head < n, (head + 1) / n, (2 * (head - n) + 1) / (2 * n))
    return 2.0 ** (-max_bias * power)


def expected(case: Case) -> np.ndarray:
    """The definition, in float64."""
    n_head, n_head_kv = case.q.shape[1], case.k.shape[0]
    kv_head = np.arange(n_head) // (n_head // n_head_kv)
    k, v = case.loaded("k"), case.loaded("v")
    slope = slopes(case.max_bias, n_head) if case.max_bias > 0 else np.zeros(n_head)
    out = np.zeros((case.n_tokens, n_head, v.shape[2]))
    for token in range(case.n_tokens):
        scores, values = [], []  # (heads, keys), (heads, keys, d_v)
        for (cell, _), pairs in zip(case.blocks, case.pairs, strict=True):
            for _, query, angle, first, last, distance in (pair for pair in pairs if pair[0] == token):
                table = case.angles[angle].astype(np.float64) if case.rope != "none" else np.zeros(0)
                q = times_hadamard(rotated(case.q[query].astype(np.float64), table, case.rope), case.hadamard)
                keys = slice(cell + first, cell + max(first, last))
                score = case.scale * np.einsum("hd,hkd->hk", q, k[kv_head, keys])
                if case.softcap:
                    score = case.softcap * np.tanh(score / case.softcap)
                scores.append(score - slope[:, None] * (distance - np.arange(first, max(first, last))))
                values.append(v[kv_head, keys])
        if sum(score.shape[1] for score in scores) == 0:
            continue
        score, value = np.concatenate(scores, axis=1), np.concatenate(values, axis=1)
        sink = np.full(n_head, -np.inf) if case.sinks is None else case.sinks.astype(np.float64)
        most = np.maximum(score.max(axis=1), sink)
        weight = np.exp(score - most[:, None])
        total = weight.sum(axis=1) + np.exp(sink - most)
        out[token] = np.einsum("hk,hkd->hd", weight, value) / total[:, None]
    return out
