"""What ranks read of a block's bytes (docs/block-format.md), which are in this machine's byte order."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .transport import Bytes

ORIGIN = struct.Struct("=q"), 32
N_FINGERPRINT = struct.Struct("=I"), 44
FINGERPRINT = 48
FIRST = 8
"""Bytes before the layers with a sliding window: how many tokens they lack."""


def origin_of(data: bytes | bytearray) -> int:
    """The position of the block's first token that its keys are rotated to."""
    field, at = ORIGIN
    return int(field.unpack_from(data, at)[0])


def fingerprint_of(data: bytes | bytearray) -> str:
    field, at = N_FINGERPRINT
    return bytes(data[FINGERPRINT : FINGERPRINT + field.unpack_from(data, at)[0]]).decode()


def cells_of(data: Bytes, sizes: Sequence[int], windowed: Sequence[bool]) -> list[Bytes]:
    """The cells of each layer of a block that lacks nothing; they are the end of its bytes. sizes: of each layer."""
    begin = len(data) - sum(sizes) - FIRST * any(windowed)
    found: dict[int, Bytes] = {}
    for layer in sorted(range(len(sizes)), key=lambda layer: windowed[layer]):
        if windowed[layer] and not any(windowed[known] for known in found):
            begin += FIRST
        found[layer] = data[begin : begin + sizes[layer]]
        begin += sizes[layer]
    return [found[layer] for layer in range(len(sizes))]
