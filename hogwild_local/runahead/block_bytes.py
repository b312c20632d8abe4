"""What ranks read of a block's bytes (docs/block-format.md), which are in this machine's byte order."""

from __future__ import annotations

import struct

ORIGIN = struct.Struct("=q"), 32
N_FINGERPRINT = struct.Struct("=I"), 44
FINGERPRINT = 48


def origin_of(data: bytes | bytearray) -> int:
    """The position of the block's first token that its keys are rotated to."""
    field, at = ORIGIN
    return int(field.unpack_from(data, at)[0])


def fingerprint_of(data: bytes | bytearray) -> str:
    field, at = N_FINGERPRINT
    return bytes(data[FINGERPRINT : FINGERPRINT + field.unpack_from(data, at)[0]]).decode()
