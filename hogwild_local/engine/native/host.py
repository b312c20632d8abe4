"""What this process computes on: devices, servers and memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..devices import PlacementRow
from .calls import call, text_of
from .library import ffi, lib


def rpc_load(path: bytes | None) -> None:
    """Sees to it that ggml has its RPC backend; path: a shared library that has it. Raises DeviceError."""
    call(lib.hw_rpc_load, ffi.NULL if path is None else ffi.new("char[]", path))


def rpc_server(endpoint: bytes, devices: Sequence[bytes], n_threads: int) -> None:
    """Runs ggml's server; returns only by raising InvalidArgument or DeviceError."""
    c_endpoint = ffi.new("char[]", endpoint)
    c_devices = [ffi.new("char[]", device) for device in devices]
    c_list = ffi.new("char *[]", c_devices)
    params = ffi.new("struct hw_rpc_server_params *", [c_endpoint, c_list, len(c_devices), n_threads])
    call(lib.hw_rpc_server, params)


def devices() -> list[tuple[str, str]]:
    """Name and description of all that this process can compute on."""
    lines = (text_of(lib.hw_devices) or "").splitlines()
    return [(name, description) for name, _, description in (line.partition("\t") for line in lines)]


def gpus() -> list[str]:
    """Names of those that a model uses unless told otherwise."""
    return (text_of(lib.hw_gpus) or "").splitlines()


def free_host_memory(root: str = "") -> int:
    """Bytes of host memory that this process can still have. root: where /proc and /sys are looked for."""
    return int(lib.hw_free_host_memory(ffi.new("char[]", root.encode())))


def placement(function: Callable[..., int], pointer: Any) -> list[PlacementRow]:
    """What lies where, as a function of the library tells it of a model or a cache."""
    n = function(pointer, ffi.NULL, 0)
    rows = ffi.new("struct hw_placement[]", n)
    function(pointer, rows, n)
    return [
        (
            ffi.string(row.device).decode("utf-8", errors="replace"),
            ffi.string(row.description).decode("utf-8", errors="replace"),
            int(row.layer),
            int(row.n_bytes),
            bool(row.is_fused),
        )
        for row in rows
    ]
