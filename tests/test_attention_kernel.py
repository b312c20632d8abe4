"""Rules of the attention kernel, for every instruction set that this CPU has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from attention_helper import Case, arguments, attention, expected, isas, rotated
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_local.engine import native as _native

FAST = [isa for isa in isas() if isa != "plain"]
every_isa = pytest.mark.parametrize("isa", FAST)
EPS = float(np.finfo(np.float32).eps)


def tolerance(case: Case) -> float:
    """Largest absolute error that float32 may cause.

    A score of size S built from d products is off by about S * eps * sqrt(d) at worst; its exp is off by as
    much, relatively; weights sum to 1, so the output is off by that times the largest value. 4: room for both
    sides of the quotient and for the exponential itself.
    """
    largest = np.abs(np.where(np.isfinite(case.v), case.v, 0)).max(initial=0) + 1
    k = np.where(np.isfinite(case.k), case.k, 0)
    size = case.scale * np.linalg.norm(case.q, axis=-1).max() * np.linalg.norm(k, axis=-1).max(initial=0)
    distance = max([abs(pair[5]) + abs(pair[4]) for pairs in case.pairs for pair in pairs], default=0)
    size += case.softcap + (distance if case.max_bias > 0 else 0) + 1
    return 4 * EPS * np.sqrt(case.k.shape[2]) * size * largest


def check(case: Case, isa: str, n_threads: int = 2) -> None:
    np.testing.assert_allclose(attention(case, isa, n_threads), expected(case), rtol=0, atol=tolerance(case))


def angle_table(rng: np.random.Generator, rows: int, n_rot: int, rope: str) -> np.ndarray:
    theta = rng.uniform(0, 2 * np.pi, (rows, n_rot // 2))
    halves = (np.cos(theta), np.sin(theta))
    table = np.stack(halves, axis=2) if rope == "adjacent" else np.concatenate(halves, axis=1)
    return table.reshape(rows, n_rot).astype(np.float32)


def make_case(
    seed: int = 0,
    n_tokens: int = 3,
    group: int = 2,
    n_head_kv: int = 2,
    d_k: int = 64,
    d_v: int = 64,
    lengths: tuple[int, ...] = (50, 7, 33),
    causal_last: bool = True,
    rope: str = "none",
    n_rot: int | None = None,
    **options,
) -> Case:
    """Tokens that see every block wholly, the last one causally; blocks lie apart and in no order."""
    rng = np.random.default_rng(seed)
    n_head, n_blocks = group * n_head_kv, len(lengths)
    order, starts, cell = rng.permutation(n_blocks), np.zeros(n_blocks, int), int(rng.integers(0, 5))
    for b in order:
        starts[b] = cell
        cell += lengths[b] + int(rng.integers(0, 9))
    blocks = [(int(start), length) for start, length in zip(starts, lengths, strict=True)]
    pairs = []
    for b, length in enumerate(lengths):
        own = causal_last and b == n_blocks - 1
        last = [max(length - n_tokens + 1 + t, 0) if own else length for t in range(n_tokens)]
        pairs.append([(t, t, t * n_blocks + b, 0, last[t], length + 3 * b + t) for t in range(n_tokens)])
    n_rot = d_k if n_rot is None else n_rot
    shapes = [(n_tokens, n_head, d_k), (n_head_kv, cell, d_k), (n_head_kv, cell, d_v)]
    q, k, v = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    if rope == "none":
        n_rot = 0
    angles = angle_table(rng, n_tokens * n_blocks, n_rot, rope)
    scale = options.pop("scale", 2 / np.sqrt(d_k))
    return Case(q, k, v, blocks, pairs, n_tokens, rope=rope, angles=angles, scale=scale, **options)


def hide_cells(case: Case, garbage: float) -> Case:
    """Puts garbage where nobody looks."""
    seen = np.zeros(case.k.shape[1], bool)
    for (cell, _), pairs in zip(case.blocks, case.pairs, strict=True):
        for pair in pairs:
            seen[cell + pair[3] : cell + pair[4]] = True
    k, v = case.k.copy(), case.v.copy()
    k[:, ~seen], v[:, ~seen] = garbage, garbage
    return replace(case, k=k, v=v)


# ------------------------------------------------------------------------------------------------- the result


@every_isa
@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0", "q5_0", "q5_1", "q4_0", "q4_1"])
@pytest.mark.parametrize("n_tokens", [1, 2, 4, 8, 40])
def test_result_is_one_softmax_over_all_blocks(isa, kind, n_tokens):
    check(make_case(n_tokens=n_tokens, k_type=kind, v_type=kind, lengths=(130, 7, 60)), isa)


def test_plain_version_is_the_definition():
    check(
        make_case(rope="halves", n_rot=40, softcap=3.0, sinks=np.linspace(-1, 2, 4).astype(np.float32)),
        "plain",
    )
    check(make_case(rope="adjacent", max_bias=8.0, k_type="f16", v_type="q8_0"), "plain")
    check(make_case(rope="halves", n_rot=40, hadamard=32), "plain")


@every_isa
@pytest.mark.parametrize(
    ("d_k", "d_v"),
    [(20, 20), (64, 128), (80, 80), (96, 64), (112, 112), (192, 128), (256, 33), (2, 1)],
)
@pytest.mark.parametrize("n_tokens", [1, 17])
@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_any_head_size_works(isa, d_k, d_v, n_tokens, kind):
    check(make_case(d_k=d_k, d_v=d_v, n_tokens=n_tokens, k_type=kind, v_type=kind), isa)


@every_isa
@pytest.mark.parametrize("group", [1, 3, 5, 7, 16, 71])
def test_any_number_of_heads_per_kv_head_works(isa, group):
    check(make_case(group=group, n_head_kv=1), isa)
    check(make_case(group=group, n_head_kv=3, n_tokens=1), isa)


@every_isa
@pytest.mark.parametrize("n_rows", range(1, 70))
def test_any_number_of_rows_in_a_tile_works(isa, n_rows):
    check(make_case(n_tokens=n_rows, group=1, n_head_kv=1, d_k=32, d_v=32, lengths=(40, 90)), isa)


@every_isa
@pytest.mark.parametrize("rope", ["none", "adjacent", "halves"])
@pytest.mark.parametrize(("d_k", "hadamard"), [(64, 64), (64, 2), (96, 32), (192, 64), (20, 4), (128, 128), (6, 1)])
def test_query_is_multiplied_by_the_hadamard_matrix_of_the_keys(isa, rope, d_k, hadamard):
    check(make_case(rope=rope, n_rot=min(d_k, 16) // 4 * 4, d_k=d_k, d_v=d_k, n_tokens=3, hadamard=hadamard), isa)


@every_isa
@pytest.mark.parametrize("rope", ["adjacent", "halves"])
@pytest.mark.parametrize("n_rot", [0, 2, 38, 64])
@pytest.mark.parametrize("n_tokens", [1, 9])
def test_query_is_rotated_for_each_block(isa, rope, n_rot, n_tokens):
    check(make_case(rope=rope, n_rot=n_rot, n_tokens=n_tokens), isa)


@every_isa
@pytest.mark.parametrize("rope", ["adjacent", "halves"])
def test_rotated_queries_may_come_one_row_a_pair(isa, rope):
    case = make_case(rope=rope, n_rot=48, n_tokens=5)
    check(case, isa)
    rows = [rotated(case.q[pair[1]], case.angles[pair[2]], rope) for pairs in case.pairs for pair in pairs]
    flat = iter(range(len(rows)))
    pairs = [[(pair[0], next(flat), 0, *pair[3:]) for pair in block] for block in case.pairs]
    ready = replace(case, q=np.array(rows), rope="none", angles=np.zeros((1, 0), np.float32), pairs=pairs)
    np.testing.assert_allclose(attention(ready, isa), attention(case, isa), rtol=0, atol=tolerance(case))


@every_isa
@pytest.mark.parametrize("n_tokens", [1, 12])
@pytest.mark.parametrize("group", [1, 2, 3])
@pytest.mark.parametrize(
    "options", [{"max_bias": 8.0}, {"softcap": 2.0}, {"softcap": 50.0, "max_bias": 4.0}, {"scale": 0.0}]
)
def test_alibi_and_softcap_are_those_of_ggml(isa, n_tokens, group, options):
    check(make_case(n_tokens=n_tokens, group=group, **options), isa)


@every_isa
@pytest.mark.parametrize("n_tokens", [1, 12])
@pytest.mark.parametrize("size", [-30.0, 0.0, 3.0, 200.0])
def test_sinks_join_the_denominator_only(isa, n_tokens, size):
    check(make_case(n_tokens=n_tokens, sinks=(size + np.arange(4)).astype(np.float32)), isa)


@every_isa
@pytest.mark.parametrize("n_tokens", [1, 12])
def test_large_scores_do_not_overflow(isa, n_tokens):
    case = make_case(n_tokens=n_tokens, scale=30.0)
    out = attention(case, isa)
    assert np.isfinite(out).all()
    np.testing.assert_allclose(out, expected(case), rtol=0, atol=tolerance(case))


# ------------------------------------------------------------------------------------------------- visibility


@every_isa
@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["f32", "f16"])
@pytest.mark.parametrize("n_tokens", [1, 2, 4, 20])
def test_masked_cells_may_hold_nan(isa, garbage, kind, n_tokens):
    case = make_case(n_tokens=n_tokens, k_type=kind, v_type=kind, lengths=(70, 40), softcap=5.0)
    # Token t sees keys in two runs of the first block, with a hole that nobody sees inside a tile of keys.
    runs = [[(t, t, 0, 3, 10 + t % 3, 0), (t, t, 0, 18 + t % 2, 45, 0)] for t in range(n_tokens)]
    hole = [pair for two in runs for pair in two]
    case = hide_cells(replace(case, pairs=[hole, case.pairs[1]]), garbage)
    assert np.isfinite(attention(case, isa)).all()
    check(case, isa)


@every_isa
@pytest.mark.parametrize("n_tokens", [2, 20])
@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_nan_in_a_block_reaches_only_who_sees_it(isa, n_tokens, kind):
    case = make_case(n_tokens=n_tokens, lengths=(64, 64), causal_last=False, v_type=kind)
    case = replace(case, pairs=[case.pairs[0], case.pairs[1][:1]])  # the second block: token 0 only
    case.v[:, case.blocks[1][0] : case.blocks[1][0] + 64] = np.nan
    out = attention(case, isa)
    assert np.isnan(out[0]).all()
    assert np.isfinite(out[1:]).all()


@every_isa
@pytest.mark.parametrize("sinks", [None, np.zeros(4, np.float32)])
def test_token_without_keys_gets_zeros(isa, sinks):
    case = make_case(n_tokens=6, sinks=sinks)
    others = [[pair for pair in block if pair[0] != 4] for block in case.pairs]
    pairs = [[pair if pair[0] != 2 else (*pair[:3], 4, 4, 0) for pair in block] for block in others]
    case = replace(case, pairs=pairs)
    out = attention(case, isa)
    assert (out[[2, 4]] == 0).all()
    check(case, isa)
    assert (attention(replace(case, blocks=[], pairs=[]), isa) == 0).all()


@every_isa
def test_a_cache_may_have_no_cells(isa):
    check(make_case(1, 3, 2, 2, 16, 16, (0,)), isa)


@every_isa
def test_each_token_may_see_other_blocks(isa):
    """The interleaved layout: a shared prefix, and a block of its own for everybody."""
    case = make_case(n_tokens=9, lengths=(400, *range(20, 101, 10)), causal_last=False, rope="halves")
    prefix, *rest = case.pairs
    own = [[pair for pair in block if pair[0] == worker] for worker, block in enumerate(rest)]
    others = [[pair for pair in block if pair[0] != worker] for worker, block in enumerate(rest)]
    check(replace(case, pairs=[prefix, *own]), isa)
    check(replace(case, pairs=[prefix, *others]), isa)


@every_isa
@pytest.mark.parametrize("window", [1, 31, 100])
def test_windows_hide_old_keys(isa, window):
    case = make_case(n_tokens=70, lengths=(300,), group=1)
    pairs = [[(*pair[:3], max(pair[4] - window, 0), *pair[4:]) for pair in block] for block in case.pairs]
    check(hide_cells(replace(case, pairs=pairs), np.nan), isa)


# ----------------------------------------------------------------------------------------- threads and chunks


@every_isa
@pytest.mark.parametrize("n_tokens", [1, 6, 90])
def test_result_does_not_depend_on_which_thread_does_what(isa, n_tokens):
    case = make_case(n_tokens=n_tokens, lengths=(700, 33, 500), n_head_kv=1)
    for n_threads in range(1, 6):
        check(case, isa, n_threads)
        first = attention(case, isa, n_threads)
        for _ in range(5):
            assert (attention(case, isa, n_threads) == first).all()


@every_isa
def test_a_plan_serves_layer_after_layer(isa):
    case = make_case(n_tokens=5, lengths=(700, 33, 500), n_head_kv=1)
    case = replace(case, pairs=[case.pairs[0], case.pairs[1][:2], case.pairs[2]])
    for n_threads in (1, 4):
        once, often = (attention(case, isa, n_threads, n_runs) for n_runs in (1, 20))
        assert (once == often).all()


@every_isa
@pytest.mark.parametrize("n_tokens", [1, 3, 40])
def test_long_blocks_may_be_cut_into_chunks(isa, n_tokens):
    """One KV head, 16 threads: every tile is cut along its keys, some chunks are hidden from some tokens."""
    lengths = (3000, 5, 900) if n_tokens < 10 else (1200, 5, 600)
    case = make_case(n_tokens=n_tokens, n_head_kv=1, d_k=32, d_v=32, lengths=lengths, softcap=4.0)
    pairs = [[(*pair[:3], 40 * pair[0] % 1000, *pair[4:]) for pair in case.pairs[0]], *case.pairs[1:]]
    check(hide_cells(replace(case, pairs=pairs, sinks=np.ones(2, np.float32)), np.nan), isa, 16)


# -------------------------------------------------------------------------------------------- any pass at all


@st.composite
def cases(draw) -> Case:
    integers, pick = st.integers, st.sampled_from
    n_tokens, group, n_head_kv = draw(integers(1, 40)), draw(integers(1, 5)), draw(integers(1, 3))
    kinds = [draw(pick(["f32", "f16", "q8_0"])) for _ in range(2)]
    sizes = [draw(pick([32, 64, 96])) if kind == "q8_0" else draw(integers(1, 70)) for kind in kinds]
    lengths = tuple(draw(st.lists(integers(0, 90), min_size=1, max_size=6)))
    rope = draw(pick(["none", "adjacent", "halves"]))
    sinks = draw(pick([None, np.linspace(-3, 3, group * n_head_kv).astype(np.float32)]))
    case = make_case(
        draw(integers(0, 999)), n_tokens, group, n_head_kv, *sizes, lengths, rope=rope,
        n_rot=2 * draw(integers(0, sizes[0] // 2)), k_type=kinds[0], v_type=kinds[1], sinks=sinks,
        softcap=draw(pick([0.0, 0.0, 5.0])), max_bias=draw(pick([0.0, 0.0, 8.0])),
    )  # fmt: skip
    rng, pairs = np.random.default_rng(draw(integers(0, 999))), []
    hidden, cut = draw(pick([0.0, 0.2, 0.9])), draw(pick([0.0, 0.5]))
    for block, length in zip(case.pairs, lengths, strict=True):
        kept = [pair for pair in block if rng.random() >= hidden]
        ranges = np.sort(rng.integers(0, length + 1, (len(kept), 2))).tolist()
        shorter = [(*pair[:3], *range_, pair[5]) for pair, range_ in zip(kept, ranges, strict=True)]
        pairs.append([a if rng.random() < cut else b for a, b in zip(shorter, kept, strict=True)])
    case = replace(case, pairs=pairs)
    return case if "q8_0" in kinds else hide_cells(case, draw(pick([0.0, np.nan])))


@settings(max_examples=300, deadline=None)
@given(case=cases(), isa=st.sampled_from(FAST), n_threads=st.integers(1, 5))
def test_any_pass_gives_what_the_definition_says(case, isa, n_threads):
    check(case, isa, n_threads)


# ------------------------------------------------------------------------------------------------ wrong input


def run_with(case: Case, **changes) -> int:
    keep: list = []
    args = arguments(case, keep)
    for name, value in changes.items():
        setattr(args, name, _native.ffi.NULL if value is None else value)
    return _native.attention(args, "auto", 1)


@pytest.mark.parametrize(
    "changes",
    [
        *({name: None} for name in ("q", "k", "v", "out", "blocks", "pairs", "angles")),
        *({name: -1} for name in ("n_tokens", "n_head", "d_k", "d_v", "n_cells", "n_blocks", "n_runs")),
        *({name: -4} for name in ("k_nb_cell", "v_nb_head", "q_nb_row", "angles_nb_row")),
        *({name: 0} for name in ("n_head_kv", "n_query_rows", "n_angle_rows", "d_k")),
        {"n_head_kv": 3}, {"rope": 3}, {"n_rot": 63}, {"n_rot": 66},
        {"hadamard": -1}, {"hadamard": 3}, {"hadamard": 128},
        {"k_type": 4}, {"k_type": 1000}, {"v_type": -1}, {"v_type": 8, "d_v": 33},
        {"n_cells": 90}, {"n_query_rows": 2}, {"n_angle_rows": 8}, {"n_pairs": 8},
        {"n_tokens": 2}, {"k_nb_head": 2}, {"q_nb_head": 3}, {"k_type": 24},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_arguments_are_refused(changes):
    case = make_case(rope="halves", lengths=(50, 7, 36))
    assert run_with(case) == 0
    assert run_with(case, **changes) != 0


def test_wrong_pairs_are_refused():
    case = make_case()
    for i, value in [(0, -1), (0, 3), (1, -1), (1, 3), (3, -1), (4, 51)]:
        pair = list(case.pairs[0][0])
        pair[i] = value
        assert run_with(replace(case, pairs=[[tuple(pair)], *case.pairs[1:]])) == 1


def test_unknown_kernels_and_silly_thread_counts_are_refused():
    keep: list = []
    args = arguments(make_case(), keep)
    assert _native.attention(args, "mmx", 1) == 2
    assert _native.attention(args, "auto", 0) != 0
    assert _native.attention(_native.ffi.NULL, "auto", 1) != 0
