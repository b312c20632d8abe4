"""Blocks kept as bytes, and made of them again: docs/block-format.md."""

from __future__ import annotations

import random
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from isolated import run_isolated
from mla import CELL_BYTES, write_mla
from rpc_helper import needs_rpc, rpc_server
from test_adapters import TOKENS, by_layer, directions, lora_tensors, write_control, write_lora
from test_blocks import ORDER_OF_SUMS, Load, Paths, probe, tokens_of

from hogwild_local import Model, SharedCache
from hogwild_local.engine.merging import Request
from hogwild_local.errors import CacheFull, InvalidArgument, ModelError

TYPES = ["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]


@pytest.mark.parametrize("cache_type", TYPES)
def test_a_written_block_goes_on_bit_by_bit_in_a_cache_of_the_same_shape(cache_type: str, single: Load) -> None:
    model = single("llama-mha")
    options = {"n_ctx": 200, "type_k": cache_type, "type_v": cache_type}
    rows, texts, data = [], [], b""
    for is_second in (False, True):
        with SharedCache(model, **options) as cache:
            if is_second:
                block = cache.write(data, "again")
            else:
                block = cache.block()
                cache.decode([([block], tokens_of(model, 80))])
                data = cache.read(block)
            rows.append(probe(cache, block))
            cache.decode([([block], tokens_of(model, 30, seed=1))])
            rows.append(probe(cache, block))
            texts.append(block.tokens)
    assert np.array_equal(rows[0], rows[2])
    assert np.array_equal(rows[1], rows[3])
    assert texts[0] == texts[1] == tokens_of(model, 80) + tokens_of(model, 30, seed=1)


@pytest.mark.parametrize("name", ["qwen3", "gemma2", "llama-yarn"])
def test_a_block_is_written_where_it_stands_elsewhere_and_in_other_attention(name: str, single: Load) -> None:
    model = single(name)
    with (
        SharedCache(model, n_ctx=300, type_k="f32", type_v="f32") as one,
        SharedCache(model, n_ctx=900, type_k="f32", type_v="f32", attention="composed") as other,
    ):
        prompt, step = one.block(), one.block()
        one.decode([([prompt], tokens_of(model, 40))])
        one.decode([([prompt, step], tokens_of(model, 50, seed=1))])
        wanted = probe(one, prompt, step)
        other.decode([([filler := other.block()], tokens_of(model, 33))])
        there = [other.write(one.read(block)) for block in (prompt, step)]
        assert np.abs(probe(other, *there) - wanted).max() <= 5e-3  # the composed form's tables, see test_equivalence
        assert other.read(there[1]) == one.read(step)
        filler.free()


@pytest.mark.parametrize("attention", ["fused", "ggml", "composed"])
def test_values_that_are_part_of_the_keys_are_kept_once(attention: str, tmp_path: Path) -> None:
    options = {"n_ctx": 100, "type_k": "f32", "type_v": "f32", "attention": attention}
    with Model(write_mla(tmp_path / "mla.gguf"), n_threads=1) as model, SharedCache(model, **options) as cache:
        block = cache.block()
        cache.decode([([block], TOKENS[:60])])
        wanted, data = probe(cache, block), cache.read(block)
        n_text = struct.unpack_from("<I", data, 44)[0]
        assert len(data) == 48 + n_text + 60 * (4 + CELL_BYTES)
        block.free()
        block = cache.write(data)
        assert np.array_equal(probe(cache, block), wanted)
        tail = block.split(40)
        assert np.array_equal(probe(cache, block, tail), wanted)
        copy = cache.copy(tail)
        assert np.abs(probe(cache, block, copy) - wanted).max() <= ORDER_OF_SUMS
        block.append(copy)
        assert np.abs(probe(cache, block) - wanted).max() <= ORDER_OF_SUMS


def test_a_block_is_refused_by_the_name_of_what_is_other(single: Load, tiny_path: Paths, tmp_path: Path) -> None:
    path = tiny_path("llama-mha")
    seen = {}
    lora = write_lora(tmp_path / "lora.gguf", lora_tensors(path))
    control = write_control(tmp_path / "control.gguf", by_layer(directions(path)))
    with SharedCache(single("llama-mha"), n_ctx=100) as cache:
        block = cache.block()
        cache.decode([([block], TOKENS[:20])])
        data = cache.read(block)
    for what, model_options, cache_options in [
        ("type_k f16, this cache has q8_0", {}, {"type_k": "q8_0"}),
        ("type_v f16, this cache has q4_0", {}, {"type_v": "q4_0"}),
        (r"adapters none, this cache has \w{16}", {"lora": [lora]}, {}),
        (r"adapters none, this cache has \w{16}", {"lora": [(lora, 0.5)]}, {}),
        (r"adapters none, this cache has \w{16}", {"control_vectors": [control]}, {}),
    ]:
        with (
            Model(path, n_threads=1, **model_options) as model,
            SharedCache(model, n_ctx=100, **cache_options) as cache,
        ):
            with pytest.raises(InvalidArgument, match=f"made with {what}") as refused:
                cache.write(data)
            seen[str(refused.value)] = True
            assert cache._native.blocks() == {}
    assert len(seen) == 5, "a scale of an adapter makes another one"
    with Model(path, n_threads=1, lora=[(lora, 0.0)]) as model, SharedCache(model, n_ctx=100) as cache:
        assert cache.write(data).tokens == TOKENS[:20]


def test_other_weights_are_told_by_a_single_number(tiny_path: Paths, tmp_path: Path) -> None:
    """Of each tensor its middle is looked at; what a training changes, it changes everywhere."""
    path, changed = tiny_path("llama-mha"), tmp_path / "changed.gguf"
    from gguf import GGUFReader

    shutil.copy(path, changed)
    reader = GGUFReader(changed, "r+")
    data = next(tensor for tensor in reader.tensors if tensor.name == "blk.1.ffn_up.weight").data
    data.reshape(-1)[data.size // 2] += 1
    reader.data.flush()
    with Model(path, n_threads=1) as model, SharedCache(model, n_ctx=20) as cache:
        kept = cache.read(cache.block())
    with (
        Model(changed, n_threads=1) as model,
        SharedCache(model, n_ctx=20) as cache,
        pytest.raises(InvalidArgument, match=r"made with weights \w{16}, this cache has \w{16}"),
    ):
        cache.write(kept)


def test_a_model_whose_file_was_changed_cannot_say_what_its_weights_were(tiny_path: Paths, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    shutil.copy(tiny_path("llama-bos"), path)
    with Model(path, n_threads=1, use_mmap=False) as model, SharedCache(model, n_ctx=20) as cache:
        block = cache.block()
        cache.decode([([block], [1, 2])])
        shutil.copy(tiny_path("llama-mha"), path)
        with pytest.raises(ModelError, match="was changed since it was loaded"):
            cache.read(block)
        path.unlink()
        with pytest.raises(ModelError, match="cannot open model file"):
            cache.read(block)
        assert block.tokens == [1, 2]


def test_damaged_data_are_refused_wherever_they_are_damaged(single: Load) -> None:
    model = single("llama-bos")
    with SharedCache(model, n_ctx=40) as cache:
        block = cache.block()
        cache.decode([([block], TOKENS[:10])])
        data = cache.read(block)
        before = cache._native.blocks()
        rng = random.Random(0)
        places = [*range(64), *(rng.randrange(len(data)) for _ in range(300)), len(data) - 1]
        damaged = [data[:i] + bytes([data[i] ^ (1 << rng.randrange(8))]) + data[i + 1 :] for i in places]
        damaged += [data[:n] for n in (0, 1, 47, 48, 60, len(data) // 2, len(data) - 1)]
        damaged += [data + b"\0", data * 2, b"\0" * len(data), bytes(100), data[::-1]]
        for bad in damaged:
            with pytest.raises(InvalidArgument):
                cache.write(bad)
        for bad in ("text", None, 7, [1], memoryview(data)):
            with pytest.raises(InvalidArgument, match="must be the bytes of a block"):
                cache.write(bad)
        assert cache._native.blocks() == before
        assert cache.read(cache.write(data)) == data


def digest(data: bytes) -> int:
    """As base/digest.h."""
    value = 0xCBF29CE484222325
    mask = 2**64 - 1
    for part in (data[:24], data[32:]):
        words = part + bytes(-len(part) % 8)
        for word in [*struct.unpack(f"<{len(words) // 8}Q", words), len(part)]:
            value = (value ^ word) * 0x9E3779B97F4A7C15 & mask
            value ^= value >> 32
    return value


def signed(data: bytes) -> bytes:
    return data[:24] + struct.pack("<Q", digest(data)) + data[32:]


@pytest.mark.skipif(sys.byteorder != "little", reason="this is the format of a little-endian machine")
def test_the_layout_is_as_documented_and_every_field_is_checked(single: Load) -> None:
    model = single("llama-bos")
    with SharedCache(model, n_ctx=40, type_k="f32", type_v="f32") as cache:
        prompt, block = cache.block(), cache.block()
        cache.decode([([prompt], TOKENS[:7])])
        cache.decode([([prompt, block], TOKENS[:10])])
        data = cache.read(block)
        magic, version, order, size, checksum, origin, n, n_text = struct.unpack_from("<8sIIQQqII", data)
        assert (magic, version, order, size) == (b"HWBLOCK\n", 4, 0x01020304, len(data))
        assert (checksum, origin, n) == (digest(data), 7, 10)
        text = data[48 : 48 + n_text].decode()
        names = [line.split("=")[0] for line in text.splitlines()]
        assert names == ["architecture", "weights", "adapters", "type_k", "type_v", "rope"]
        assert list(struct.unpack_from("<10i", data, 48 + n_text)) == TOKENS[:10]
        cell = 2 * 2 * 20 * 4  # keys and values of 2 layers with one head of 20 numbers
        assert len(data) == 48 + n_text + 10 * 4 + 10 * cell

        def changed(offset: int, layout: str, value: object) -> bytes:
            whole = bytearray(data)
            struct.pack_into(layout, whole, offset, value)
            return signed(bytes(whole))

        written = cache.write(signed(data))
        assert written.tokens == TOKENS[:10]
        before = cache._native.blocks()
        for bad, what in [
            (changed(8, "<I", 1), "version 1"),
            (changed(8, "<I", 2), "version 2: this library reads version 4"),
            (changed(12, "<I", 0x04030201), "order of bytes"),
            (changed(32, "<q", -1), "origin"),
            (changed(32, "<q", 2**62), "origin"),
            (changed(40, "<I", 9), "not as many as the tokens"),
            (changed(40, "<I", 2**32 - 1), "longer than the whole"),
            (changed(44, "<I", 2**32 - 1), "longer than the whole"),
            (changed(44, "<I", n_text - 4), "fingerprint|made with"),
            (changed(44, "<I", n_text + 4), "fingerprint|as many|made with"),
            (changed(48, "<B", 0), "architecture"),
            (changed(48 + n_text, "<i", model.n_vocab), "token is out of range"),
            (changed(48 + n_text, "<i", -1), "token is out of range"),
        ]:
            with pytest.raises(InvalidArgument, match=what):
                cache.write(bad)
        assert cache._native.blocks() == before


@pytest.mark.skipif(sys.byteorder != "little", reason="this is the format of a little-endian machine")
@pytest.mark.parametrize(
    ("cache_type", "layout", "bad"),
    [
        ("f32", "<f", (float("inf"), float("-inf"), float("nan"), 1e30)),
        ("f16", "<e", (float("inf"), float("nan"))),
        ("q8_0", "<e", (float("inf"), float("nan"))),  # the scale of a row's first numbers
    ],
)
def test_numbers_that_no_cache_stores_are_refused(
    cache_type: str, layout: str, bad: tuple[float, ...], single: Load
) -> None:
    with SharedCache(single("llama-mha"), n_ctx=40, type_k=cache_type, type_v=cache_type) as cache:
        block = cache.block()
        cache.decode([([block], TOKENS[:10])])
        data = cache.read(block)
        first = 48 + struct.unpack_from("<I", data, 44)[0] + 10 * 4
        row = (len(data) - first) // (10 * 2 * 2 * 3)  # 2 layers of keys and values, 3 heads
        for number in bad:
            for at in (first, len(data) - row):  # a key, and a value of the last layer
                whole = bytearray(data)
                struct.pack_into(layout, whole, at, number)
                with pytest.raises(InvalidArgument, match="an infinity, a NaN"):
                    cache.write(signed(bytes(whole)))
        assert len(cache._native.blocks()) == 1
        assert cache.n_free == 30


def test_a_written_block_leaves_what_is_promised_to_others(single: Load) -> None:
    model = single("llama-bos")
    with SharedCache(model, n_ctx=40) as cache:
        block = cache.block()
        cache.decode([([block], TOKENS[:10])])
        data = cache.read(block)
        waiting = Request([])
        cache._ledger.promise(waiting, 25)  # by a long prompt, between its parts
        with pytest.raises(CacheFull) as full:
            cache.write(data)
        assert (full.value.needed, full.value.free) == (10, 5)
        assert len(cache._native.blocks()) == 1
        cache._ledger.release(waiting)
        assert cache.write(data).tokens == TOKENS[:10]


# -- on other devices ------------------------------------------------------------------------------------------

ON_A_SERVER = """
import numpy as np
from hogwild_local import Model, SharedCache

path, server, cache_type = sys.argv[1:]
tokens = [(7 * i * i + 3 * i + 1) % 300 for i in range(90)]
options = {"n_ctx": 100, "type_k": cache_type, "type_v": cache_type, "attention": "ggml"}

def probe(cache, *blocks):
    own = cache.block()
    return cache.decode([([*blocks, own], [5])])[0]

with Model(path, n_threads=1) as here, Model(path, n_gpu_layers=2, n_threads=1, rpc=server) as there:
    with SharedCache(here, **options) as at_home, SharedCache(there, **options) as away:
        block = away.block()
        away.decode([([block], tokens)])
        data, wanted = away.read(block), probe(away, block)
        home = at_home.write(data)
        assert at_home.read(home) == data
        assert home.tokens == tokens
        print(np.abs(probe(at_home, home) - wanted).max())
        block.free()
        tail = (head := away.write(data)).split(40)
        assert np.array_equal(probe(away, head, tail), wanted)
        rest = head.split(10)
        rest.append(tail)  # there is no room for it beside itself
        assert np.abs(probe(away, head, rest) - wanted).max() < 0.02 * np.abs(wanted).max()
        assert head.tokens + rest.tokens == tokens
        away.check()
"""


@needs_rpc
@pytest.mark.parametrize("cache_type", ["f32", "q8_0"])
def test_a_block_moves_between_a_server_and_this_machine(cache_type: str, tiny_path: Paths) -> None:
    with rpc_server() as server:
        done = run_isolated(ON_A_SERVER, tiny_path("llama-mha"), server.address, cache_type)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) <= 1e-3
