"""LoRA adapters and control vectors: the logits of llama_decode with the same ones, and errors that name the fault."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from isolated import run_isolated

from hogwild_local import Hogwild, Model, SharedCache, errors
from hogwild_local.cli.baseline import LlamaBaseline
from hogwild_local.engine.adapters import parse_adapter
from hogwild_local.errors import InvalidArgument, ModelError, UnsupportedModel

Paths = Callable[..., Path]
TOLERANCE = 1e-3  # f32 model and cache: the order of sums, and ggml's f16 tables for exp
TOKENS = [(7 * i * i + 3 * i + 1) % 300 for i in range(70)]
MATRICES = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"]
RANK = 4


def base_tensors(model: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes, in numpy's order."""
    return {tensor.name: tuple(map(int, tensor.shape[::-1])) for tensor in GGUFReader(model).tensors}


def lora_tensors(model: Path, seed: int = 0, names: Sequence[str] = MATRICES) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    result = {}
    for name, shape in base_tensors(model).items():
        if not any(f"{part}.weight" in name for part in names):
            continue
        rows, columns = shape
        if name == "token_embd.weight":  # rows of a are looked up
            rows, columns = columns, RANK
            result[f"{name}.lora_a"] = rng.standard_normal((shape[0], RANK)).astype(np.float32) / 8
        else:
            result[f"{name}.lora_a"] = rng.standard_normal((RANK, columns)).astype(np.float32) / np.float32(
                np.sqrt(columns)
            )
        result[f"{name}.lora_b"] = rng.standard_normal((rows, RANK)).astype(np.float32) / 4
    return result


def write_lora(path: Path, tensors: dict[str, np.ndarray], arch: str = "llama", **keys: object) -> Path:
    """keys: "type", "kind" and "alpha" in place of the right ones; None leaves one out."""
    writer = GGUFWriter(path, arch)
    values = {"type": "adapter", "kind": "lora", "alpha": 8.0} | keys
    for key, name in {"type": "general.type", "kind": "adapter.type", "alpha": "adapter.lora.alpha"}.items():
        value = values[key]
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    return finish(writer, path)


def finish(writer: GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def directions(model: Path, seed: int = 0) -> np.ndarray:
    """[layers - 1, width], from layer 1 on."""
    shapes = base_tensors(model)
    n_layers = sum("attn_norm" in name for name in shapes)
    return (
        np.random.default_rng(seed).standard_normal((n_layers - 1, shapes["token_embd.weight"][1])).astype(np.float32)
    )


def write_control(
    path: Path, by_layer: dict[object, np.ndarray], raw_dtype: GGMLQuantizationType | None = None
) -> Path:
    writer = GGUFWriter(path, "controlvector")
    for layer, data in by_layer.items():
        writer.add_tensor(f"direction.{layer}", data, raw_dtype=raw_dtype)
    return finish(writer, path)


def by_layer(rows: np.ndarray) -> dict[object, np.ndarray]:
    return dict(enumerate(rows, start=1))


def our_logits(path: Path, attention: str = "fused", **adapters: object) -> np.ndarray:
    """In two blocks, the first of them appended to an empty one: adapters are in what is stored and moved too."""
    with (
        Model(path, n_threads=1, **adapters) as model,
        SharedCache(model, n_ctx=256, type_k="f32", type_v="f32", attention=attention) as cache,
    ):
        a, b, c = (cache.block(name) for name in "abc")
        cache.decode([([a], TOKENS[:20])])
        cache.decode([([a, b], TOKENS[20:50])])
        a.append(b)
        return cache.decode([([a, c], TOKENS[50:])])[0]


def llama_logits(path: Path, **adapters: object) -> np.ndarray:
    with (
        Model(path, n_threads=1) as model,
        LlamaBaseline(model, 256, 1, "f32", "f32", flash_attention=False, **adapters) as llama,
    ):
        llama.prefill(TOKENS)
        return np.array(llama.logits(-1)[: model.n_vocab], dtype=np.float32)


def check_same(ours: np.ndarray, theirs: np.ndarray, plain: np.ndarray) -> None:
    assert np.abs(ours - theirs).max() <= TOLERANCE
    assert np.abs(ours - plain).max() > 100 * TOLERANCE, "this adapter changes too little to say anything"


# -- the same as llama.cpp -------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["fused", "ggml", "composed"])
@pytest.mark.parametrize("name", ["llama", "llama-yarn", "qwen2", "qwen3"])
def test_a_lora_adapter_gives_the_logits_of_llama_decode(
    name: str, attention: str, tiny_path: Paths, tmp_path: Path
) -> None:
    path = tiny_path(name)
    lora = [(write_lora(tmp_path / "lora.gguf", lora_tensors(path), name.split("-")[0]), 0.7)]
    check_same(our_logits(path, attention, lora=lora), llama_logits(path, lora=lora), our_logits(path, attention))


def test_a_lora_adapter_of_the_embedding_gives_the_logits_of_llama_decode(tiny_path: Paths, tmp_path: Path) -> None:
    path = tiny_path("llama")
    tensors = lora_tensors(path, names=["token_embd", "output"])
    assert len([name for name in tensors if name.startswith(("token_embd", "output"))]) == 4
    lora = [(write_lora(tmp_path / "lora.gguf", tensors), 1.0)]
    check_same(our_logits(path, lora=lora), llama_logits(path, lora=lora), our_logits(path))


def test_two_lora_adapters_add_up_as_in_llama_decode(tiny_path: Paths, tmp_path: Path) -> None:
    path = tiny_path("llama")
    one = write_lora(tmp_path / "one.gguf", lora_tensors(path, names=["attn_q", "ffn_down"]))
    two = write_lora(tmp_path / "two.gguf", lora_tensors(path, seed=1, names=["attn_q", "attn_v"]))
    lora = [(one, 0.5), (two, -0.8)]
    ours = our_logits(path, lora=lora)
    check_same(ours, llama_logits(path, lora=lora), our_logits(path))
    for alone in lora:
        assert np.abs(ours - our_logits(path, lora=[alone])).max() > 100 * TOLERANCE


def test_scale_0_is_no_adapter_and_a_path_alone_is_scale_1(tiny_path: Paths, tmp_path: Path) -> None:
    path = tiny_path("llama")
    lora = write_lora(tmp_path / "lora.gguf", lora_tensors(path))
    control = write_control(tmp_path / "control.gguf", by_layer(directions(path)))
    plain = our_logits(path)
    assert np.array_equal(our_logits(path, lora=[(lora, 0.0)]), plain)
    assert np.array_equal(our_logits(path, control_vectors=[(control, 0)]), plain)
    whole = our_logits(path, lora=[lora], control_vectors=[str(control)])
    assert np.array_equal(whole, our_logits(path, lora=[(str(lora), 1)], control_vectors=[(control, 1.0)]))
    assert np.abs(whole - plain).max() > 100 * TOLERANCE


@pytest.mark.parametrize("attention", ["fused", "ggml", "composed"])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_a_control_vector_gives_the_logits_of_llama_decode(
    name: str, attention: str, tiny_path: Paths, tmp_path: Path
) -> None:
    path = tiny_path(name)
    rows = directions(path)
    control = [(write_control(tmp_path / "control.gguf", by_layer(rows)), 0.6)]
    ours = our_logits(path, attention, control_vectors=control)
    check_same(ours, llama_logits(path, control=rows * np.float32(0.6)), our_logits(path, attention))


def test_control_vectors_add_up_each_in_its_layers(tiny_path: Paths, tmp_path: Path) -> None:
    path = tiny_path("qwen3")  # 3 layers
    one, two = directions(path), directions(path, seed=1)
    files = [write_control(tmp_path / f"{i}.gguf", by_layer(rows)) for i, rows in enumerate((one, two))]
    ours = our_logits(path, control_vectors=[(files[0], 0.5, 2, 2), (files[1], -0.4, 1, 2)])
    sums = np.float32(-0.4) * two
    sums[1] += np.float32(0.5) * one[1]
    check_same(ours, llama_logits(path, control=sums), our_logits(path))


def test_lora_and_control_vector_together_are_as_in_llama_decode(tiny_path: Paths, tmp_path: Path) -> None:
    path = tiny_path("llama")
    lora = [(write_lora(tmp_path / "lora.gguf", lora_tensors(path)), 1.0)]
    rows = directions(path)
    control = [write_control(tmp_path / "control.gguf", by_layer(rows))]
    ours = our_logits(path, lora=lora, control_vectors=control)
    check_same(ours, llama_logits(path, lora=lora, control=rows), our_logits(path, lora=lora))


def test_a_model_keeps_its_adapters_while_a_cache_lives(tiny_path: Paths, tmp_path: Path) -> None:
    path = tiny_path("llama")
    lora = write_lora(tmp_path / "lora.gguf", lora_tensors(path))
    model = Model(path, n_threads=1, lora=[lora])
    lora.unlink()
    caches = [SharedCache(model, n_ctx=64, type_k="f32", type_v="f32") for _ in range(2)]
    model.close()
    rows = []
    for cache in caches:
        rows.append(cache.decode([([cache.block()], TOKENS[:60])])[0])
        cache.close()
    assert np.array_equal(*rows)


# -- errors ----------------------------------------------------------------------------------------------------


def without(tensors: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {key: value for key, value in tensors.items() if key != name}


QUERY = "blk.0.attn_q.weight"
BAD_LORAS: dict[str, tuple[Callable[[Path, dict[str, np.ndarray]], object], str]] = {
    "another architecture": (lambda p, t: write_lora(p, t, "qwen2"), "architecture 'qwen2', the model of 'llama'"),
    "a model": (lambda p, t: write_lora(p, t, type="model"), "is no LoRA adapter"),
    "another kind of adapter": (lambda p, t: write_lora(p, t, kind="ia3"), "is no LoRA adapter.*'ia3'"),
    "no kind": (lambda p, t: write_lora(p, t, kind=None), "is no LoRA adapter"),
    "a number for a kind": (lambda p, t: write_lora(p, t, kind=5), "is no LoRA adapter"),
    "a number for a type": (lambda p, t: write_lora(p, t, type=5), "is no LoRA adapter"),
    "no alpha": (lambda p, t: write_lora(p, t, alpha=None), "adapter.lora.alpha"),
    "a text for alpha": (lambda p, t: write_lora(p, t, alpha="8"), "adapter.lora.alpha"),
    "a without b": (lambda p, t: write_lora(p, without(t, f"{QUERY}.lora_b")), f"only one of the two.*{QUERY}"),
    "b without a": (lambda p, t: write_lora(p, without(t, f"{QUERY}.lora_a")), f"only one of the two.*{QUERY}"),
    "wider": (lambda p, t: write_lora(p, t | {f"{QUERY}.lora_a": np.zeros((RANK, 7), np.float32)}), QUERY),
    "higher": (lambda p, t: write_lora(p, t | {f"{QUERY}.lora_b": np.zeros((7, RANK), np.float32)}), QUERY),
    "other ranks": (lambda p, t: write_lora(p, t | {f"{QUERY}.lora_a": np.zeros((7, 120), np.float32)}), QUERY),
    "experts": (lambda p, t: write_lora(p, t | {f"{QUERY}.lora_a": np.zeros((2, RANK, 120), np.float32)}), QUERY),
    "rank 0": (
        lambda p, t: write_lora(
            p,
            t
            | {
                f"{QUERY}.lora_a": np.zeros((0, 120), np.float32),
                f"{QUERY}.lora_b": np.zeros((t[f"{QUERY}.lora_b"].shape[0], 0), np.float32),
            },
        ),
        QUERY,
    ),
    "integers": (lambda p, t: write_lora(p, t | {f"{QUERY}.lora_a": np.zeros((RANK, 120), np.int32)}), QUERY),
    "an unknown tensor": (
        lambda p, t: write_lora(p, {name.replace("blk.0", "blk.9"): data for name, data in t.items()}),
        "blk.9.attn_.*does not have",
    ),
    "a tensor of another kind": (lambda p, t: write_lora(p, t | {"foo": np.zeros(3, np.float32)}), "foo"),
    "cut": (lambda p, t: p.write_bytes(write_lora(p, t).read_bytes()[:-5000]), "lora.gguf"),
    "no GGUF file": (lambda p, t: p.write_bytes(b"%PDF"), "is not a GGUF file"),
    "a folder": (lambda p, t: p.mkdir(), "directory"),
    "missing": (lambda p, t: None, "LoRA adapter.*No such file"),
}

LOAD = """
import sys
from hogwild_local import Model, errors
try:
    Model(sys.argv[1], n_threads=1, **{sys.argv[3]: [sys.argv[2]]})
    print("loaded")
except errors.ModelError as error:
    print(error)
"""


@pytest.mark.parametrize("case", BAD_LORAS)
def test_a_bad_lora_adapter_is_refused_by_name(case: str, tiny_path: Paths, tmp_path: Path) -> None:
    write, words = BAD_LORAS[case]
    write(tmp_path / "lora.gguf", lora_tensors(tiny_path("llama")))
    done = run_isolated(LOAD, tiny_path("llama"), tmp_path / "lora.gguf", "lora")  # most of these end llama.cpp
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(ModelError, match=words):
        raise ModelError(done.stdout)
    assert str(tmp_path) in done.stdout


def test_an_adapter_of_an_embedding_that_is_the_output_too_is_refused(tiny_path: Paths, tmp_path: Path) -> None:
    path = tiny_path("llama-mha")
    lora = write_lora(tmp_path / "lora.gguf", lora_tensors(path, names=["token_embd"]))
    with pytest.raises(UnsupportedModel, match=r"lora\.gguf.*also the output"):
        Model(path, n_threads=1, lora=[lora])


def widen(path: Path) -> Path:
    """The file with more numbers in direction.1 than there is memory for."""
    data, name = path.read_bytes(), b"direction.1" + struct.pack("<I", 1)
    at = data.index(name) + len(name)
    path.write_bytes(data[:at] + struct.pack("<Q", 2**50) + data[at + 8 :])
    return path


ROW = np.ones(120, np.float32)
BAD_CONTROLS: dict[str, tuple[Callable[[Path], object], str]] = {
    "narrower": (lambda p: write_control(p, {1: ROW[:100]}), r"direction\.1.*120 numbers"),
    "layer 0": (lambda p: write_control(p, {0: ROW}), r"direction\.0.*layers 1 to 2"),
    "a layer too many": (lambda p: write_control(p, {1: ROW, 3: ROW}), r"direction\.3.*layers 1 to 2"),
    "no layer": (lambda p: write_control(p, {"x": ROW}), r"direction\.x"),
    "a layer with a sign": (lambda p: write_control(p, {"-1": ROW}), r"direction\.-1"),
    "a huge layer": (lambda p: write_control(p, {10**20: ROW}), r"direction\.1000"),
    "of another type": (lambda p: write_control(p, {1: ROW.astype(np.float16)}), r"direction\.1.*f32"),
    "empty": (lambda p: write_control(p, {}), "no tensor"),
    "cut": (lambda p: p.write_bytes(write_control(p, {1: ROW}).read_bytes()[:-100]), r"control\.gguf"),
    "more numbers than it has": (lambda p: widen(write_control(p, {1: ROW})), r"ends before 'direction\.1'"),
    "no GGUF file": (lambda p: p.write_bytes(b""), "is not a GGUF file"),
    "missing": (lambda p: None, "control vector.*No such file"),
}


@pytest.mark.parametrize("case", BAD_CONTROLS)
def test_a_bad_control_vector_is_refused_by_name(case: str, tiny_path: Paths, tmp_path: Path) -> None:
    write, words = BAD_CONTROLS[case]
    write(tmp_path / "control.gguf")
    with pytest.raises(ModelError, match=words) as caught:
        Model(tiny_path("llama"), n_threads=1, control_vectors=[tmp_path / "control.gguf"])
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("layers", [(1, 3), (2, 1), (3, 3)])
def test_layers_that_the_model_lacks_are_refused(layers: tuple[int, int], tiny_path: Paths, tmp_path: Path) -> None:
    control = write_control(tmp_path / "control.gguf", {1: ROW})
    with pytest.raises(InvalidArgument, match="1 to 2"):
        Model(tiny_path("llama"), n_threads=1, control_vectors=[(control, 1.0, *layers)])


@pytest.mark.parametrize("name", ["lora", "control_vectors"])
@pytest.mark.parametrize(
    "value",
    ["a.gguf", Path("a.gguf"), None, 5, [5], [("a.gguf", "1")], [("a.gguf", float("nan"))], [("a.gguf", float("inf"))],
     [("a.gguf", None)], [()], [("a", 1.0, 2)], [("a", 1.0, 0, 1)], [("a\0b", 1.0)], [("a", True)], {"a": 1.0}],
    ids=repr,
)  # fmt: skip
def test_what_is_no_list_of_adapters_is_refused_by_name(name: str, value: object, tiny_path: Paths) -> None:
    with pytest.raises(InvalidArgument, match=name):
        Model(tiny_path("llama"), n_threads=1, **{name: value})


def test_adapters_belong_to_a_model_that_is_given_by_path(single: Callable[..., Model]) -> None:
    for name in ("lora", "control_vectors"):
        with pytest.raises(InvalidArgument, match=name):
            Hogwild(single("llama"), **{name: ["a.gguf"]})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a.gguf", ("a.gguf", 1.0)), ("a.gguf:0.5", ("a.gguf", 0.5)), ("a:b:-2", ("a:b", -2.0)), ("a:b", ("a:b", 1.0)),
     ("C:\\a.gguf", ("C:\\a.gguf", 1.0)), ("C:\\a.gguf:1e-1", ("C:\\a.gguf", 0.1)), (":3", (":3", 1.0))],
)  # fmt: skip
def test_an_adapter_on_the_command_line_is_a_path_with_or_without_a_scale(
    text: str, expected: tuple[str, float]
) -> None:
    assert parse_adapter(text) == expected


def test_errors_of_adapters_leave_nothing_behind(tiny_path: Paths, tmp_path: Path) -> None:
    path = tiny_path("llama")
    good = write_lora(tmp_path / "good.gguf", lora_tensors(path))
    with pytest.raises(errors.ModelError, match="missing"):
        Model(path, n_threads=1, lora=[good, tmp_path / "missing.gguf"])
    assert np.array_equal(our_logits(path, lora=[good]), our_logits(path, lora=[good]))
