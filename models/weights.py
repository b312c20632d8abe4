"""Seeded random tensors, the same on every machine, and writing them to a GGUF file one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias
from zlib import crc32

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, LlamaFileType, quants
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Encoded: TypeAlias = NDArray[np.float32] | NDArray[np.float16] | NDArray[np.uint8]

FILE_TYPES = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
}


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]  # numpy's order: rows, then values in a row
    std: float = 0.0
    mean: float = 0.0
    values: tuple[float, ...] | None = None  # instead of random ones
    used_rows: int | None = None  # rows from here on are zero
    is_f32: bool = False  # in files of any type: llama.cpp reads some small matrices as nothing else

    @property
    def is_matrix(self) -> bool:
        return len(self.shape) > 1


Fill: TypeAlias = Callable[[Tensor, GGMLQuantizationType], Encoded]


def matrix(name: str, rows: int, columns: int, gain: float = 1.0, used_rows: int | None = None) -> Tensor:
    """Scaled so that inputs of size 1 make outputs of size `gain`."""
    return Tensor(name, (rows, columns), std=gain / math.sqrt(columns), used_rows=used_rows)


def norm(name: str, size: int, gain: float = 1.0) -> Tensor:
    """Not all the same, or a norm applied in the wrong place would not be noticed."""
    return Tensor(name, (size,), std=gain / 8, mean=gain)


def random_bits(count: int, seed: int, name: str) -> NDArray[np.uint64]:
    """A stream for each name, so that a new tensor leaves the others as they were."""
    stream = np.random.PCG64(np.random.SeedSequence([seed, crc32(name.encode())]))
    return np.asarray(stream.random_raw(count), np.uint64)


def bell(count: int, seed: int, name: str) -> Floats:
    """Bell-shaped values of size 1: the sum of four 16-bit dice.

    No logarithms, no rejections, only integers and one rounding: no machine's maths library can change a bit.
    """
    dice = random_bits(count, seed, name).view(np.uint16).reshape(count, 4)
    values: Floats = (dice.sum(axis=1, dtype=np.int32) - 2 * 0xFFFF).astype(np.float32)
    values *= np.float32(1 / math.sqrt((2**32 - 1) / 3))
    return values


def seeded(seed: int) -> Fill:
    def fill(tensor: Tensor, kind: GGMLQuantizationType) -> Encoded:
        values = bell(math.prod(tensor.shape), seed, tensor.name).reshape(tensor.shape)
        values = values * np.float32(tensor.std) + np.float32(tensor.mean)
        return quants.quantize(values, kind)

    return fill


def stored_as(tensor: Tensor, kind: GGMLQuantizationType) -> GGMLQuantizationType:
    """Like llama.cpp's own files: vectors stay f32, and rows that do not divide into blocks become f16."""
    if not tensor.is_matrix or tensor.is_f32:
        return GGMLQuantizationType.F32
    return kind if tensor.shape[-1] % GGML_QUANT_SIZES[kind][0] == 0 else GGMLQuantizationType.F16


class Sizes(Protocol):
    """What the shapes of all kinds of models have."""

    @property
    def vocabulary(self) -> int: ...
    @property
    def context(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def feed_forward(self) -> int: ...


def add_sizes(writer: GGUFWriter, shape: Sizes) -> None:
    """The keys that all architectures begin with."""
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)


@contextmanager
def new_file(path: Path, arch: str) -> Iterator[GGUFWriter]:
    """The file takes its name when it is complete: one that is mapped into memory may carry it until then."""
    part = path.with_name(f"{path.name}.part")
    writer = GGUFWriter(part, arch)
    try:
        yield writer
        writer.close()
        part.replace(path)
    finally:
        writer.close()
        part.unlink(missing_ok=True)


def write_tensors(writer: GGUFWriter, tensors: Sequence[Tensor], file_type: str, fill: Fill) -> None:
    """Writes header and tensors, with no more than one tensor in memory."""
    wanted, declared = FILE_TYPES[file_type]
    writer.add_file_type(declared)
    kinds = [stored_as(tensor, wanted) for tensor in tensors]
    for tensor, kind in zip(tensors, kinds, strict=True):
        per_block, block_bytes = GGML_QUANT_SIZES[kind]
        size = math.prod(tensor.shape) // per_block * block_bytes
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, kind in zip(tensors, kinds, strict=True):
        if tensor.values is not None:
            data: Encoded = np.array(tensor.values, np.float32)
        else:
            data = fill(tensor, kind)
        if tensor.used_rows is not None:
            data[tensor.used_rows :] = 0  # a block of zero bytes means zeros in every type above
        writer.write_tensor_data(data)
