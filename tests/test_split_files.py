"""A model in several files, as llama.cpp's gguf-split writes them, is the model in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from isolated import run_isolated

from hogwild_local import Model, SharedCache
from hogwild_local.errors import ModelError

Paths = Callable[..., Path]
N_PARTS = 3


def part_name(number: int, n_parts: int = N_PARTS) -> str:
    return f"model-{number:05}-of-{n_parts:05}.gguf"


def write_parts(model: Path, folder: Path, numbers: dict[int, object] | None = None) -> Path:
    """The first part has all metadata. numbers: values of split.no that are not the part's own (from 0 on)."""
    reader = GGUFReader(model)
    shares = np.array_split(np.arange(len(reader.tensors)), N_PARTS)
    for part, share in enumerate(shares):
        writer = GGUFWriter(folder / part_name(part + 1), reader.fields["general.architecture"].contents())
        if part == 0:
            copy_metadata(reader, writer)
        number = (numbers or {}).get(part, part)
        if isinstance(number, int):
            writer.add_uint16("split.no", number)
        else:
            writer.add_string("split.no", str(number))
        writer.add_uint16("split.count", N_PARTS)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for i in share:
            tensor = reader.tensors[i]
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return folder / part_name(1)


def copy_metadata(reader: GGUFReader, writer: GGUFWriter) -> None:
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            sub_type = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type)


def logits(path: Path, **settings: object) -> np.ndarray:
    with Model(path, n_threads=1, **settings) as model, SharedCache(model, n_ctx=64) as cache:
        return cache.decode([([cache.block()], model.tokenize("Several files are one model."))])


@pytest.mark.parametrize(("name", "file_type"), [("llama", "f32"), ("qwen3", "q4_0")])
def test_a_split_model_is_the_unsplit_one(name: str, file_type: str, tiny_path: Paths, tmp_path: Path) -> None:
    first = write_parts(tiny_path(name, file_type), tmp_path)
    assert len(list(tmp_path.iterdir())) == N_PARTS
    assert np.array_equal(logits(first), logits(tiny_path(name, file_type)))
    assert np.array_equal(logits(first, use_mmap=False), logits(first))


def test_a_lora_adapter_of_a_split_model_is_checked_against_all_parts(tiny_path: Paths, tmp_path: Path) -> None:
    from test_adapters import lora_tensors, write_lora

    first = write_parts(tiny_path("llama"), tmp_path)
    lora = [write_lora(tmp_path / "lora.gguf", lora_tensors(tiny_path("llama")))]
    assert np.array_equal(logits(first, lora=lora), logits(tiny_path("llama"), lora=lora))


@pytest.mark.parametrize("number", [2, 3])
def test_a_missing_part_is_named(number: int, tiny_path: Paths, tmp_path: Path) -> None:
    first = write_parts(tiny_path("llama"), tmp_path)
    (tmp_path / part_name(number)).unlink()
    with pytest.raises(ModelError, match=rf"No such file.*{part_name(number)}"):
        Model(first, n_threads=1)


def test_a_part_that_is_another_file_is_named(tiny_path: Paths, tmp_path: Path) -> None:
    first = write_parts(tiny_path("llama"), tmp_path)
    second = tmp_path / part_name(2)
    for content in (b"", b"no GGUF file", tiny_path("llama").read_bytes(), (tmp_path / part_name(3)).read_bytes()):
        second.write_bytes(content)
        with pytest.raises(ModelError, match=part_name(2)):
            Model(first, n_threads=1)


def test_parts_in_another_order_are_refused_by_name(tiny_path: Paths, tmp_path: Path) -> None:
    first = write_parts(tiny_path("llama"), tmp_path, {1: 2, 2: 1})
    with pytest.raises(ModelError, match=part_name(2)):
        Model(first, n_threads=1)


LOAD = """
import sys
from hogwild_local import Model, errors
try:
    Model(sys.argv[1], n_threads=1)
except errors.ModelError as error:
    print(error)
"""


def test_a_part_whose_number_is_a_text_does_not_end_the_process(tiny_path: Paths, tmp_path: Path) -> None:
    first = write_parts(tiny_path("llama"), tmp_path, {2: "2"})
    done = run_isolated(LOAD, first)
    assert (done.returncode, done.stderr) == (0, "")
    assert part_name(3) in done.stdout


def test_a_part_that_is_not_the_first_is_refused_by_name(tiny_path: Paths, tmp_path: Path) -> None:
    write_parts(tiny_path("llama"), tmp_path)
    with pytest.raises(ModelError, match=rf"{part_name(2)}.*first"):
        Model(tmp_path / part_name(2), n_threads=1)


def test_a_whole_model_may_be_named_like_a_part(tiny_path: Paths, tmp_path: Path) -> None:
    for n_parts in (1, 3):
        path = tmp_path / part_name(1, n_parts)
        path.write_bytes(tiny_path("llama").read_bytes())
        assert np.array_equal(logits(path), logits(tiny_path("llama")))
