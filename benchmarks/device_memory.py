"""What a pass reaches of the bandwidth of the memory that the model lies in.

    python benchmarks/device_memory.py model.gguf [--n-gpu-layers -1] [--contexts 1024,4096] [--workers 1,2,4,8]
        [--passes 60] [--threads N] [--json FILE]

The bandwidth: ggml copies one tensor to another on that device; bytes read and written. A pass reads all weights once,
and once each cell that some worker sees (hogwild_local/cli/machine.py counts them). Medians; the layout is combined.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import llama_cpp

from hogwild_local import Model, SharedCache
from hogwild_local.cli.machine import Costs
from hogwild_local.cli.measure import seconds_of
from hogwild_local.engine.devices import Device

MOST_BYTES = 1 << 30  # of each of the two tensors: no cache holds them
COPIES = 20
UNCOUNTED = 2
GGML_TYPE_I8 = 24


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


def ggml(name: str, result: Any) -> Any:
    """A function of the ggml that llama.cpp has loaded."""
    function = getattr(llama_cpp.llama_cpp._lib, name)
    function.restype = result
    return function


def copy_bytes_per_second(device: str) -> float:
    """Raises MemoryError."""
    pointer = ctypes.c_void_p
    found = pointer(ggml("ggml_backend_dev_by_name", pointer)(device.encode()))
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ggml("ggml_backend_dev_memory", None)(found, ctypes.byref(free), ctypes.byref(total))
    n_bytes = min(MOST_BYTES, free.value // 8) & ~0xFFF
    backend = pointer(ggml("ggml_backend_dev_init", pointer)(found, None))
    context = pointer(ggml("ggml_init", pointer)(InitParams(1 << 16, None, True)))
    new = ggml("ggml_new_tensor_1d", pointer)
    tensors = [pointer(new(context, GGML_TYPE_I8, ctypes.c_int64(n_bytes))) for _ in range(2)]
    buffer = pointer(ggml("ggml_backend_alloc_ctx_tensors", pointer)(context, backend))
    if not buffer:
        raise MemoryError(f"{device} has no room for two tensors of {n_bytes} bytes")
    fill, copy, wait = (ggml(f"ggml_backend_{name}", None) for name in ("tensor_memset", "tensor_copy", "synchronize"))
    for tensor in tensors:
        fill(tensor, ctypes.c_uint8(1), ctypes.c_size_t(0), ctypes.c_size_t(n_bytes))

    def once() -> None:
        copy(*tensors)
        wait(backend)

    seconds = median([seconds_of(once) for _ in range(COPIES)][UNCOUNTED:])
    ggml("ggml_backend_buffer_free", None)(buffer)
    ggml("ggml_free", None)(context)
    ggml("ggml_backend_free", None)(backend)
    return 2 * n_bytes / seconds


def row(cache: SharedCache, costs: Costs, context: int, n_workers: int, passes: int, n_vocab: int) -> dict[str, Any]:
    rng = random.Random(1)
    prompt = cache.block("prompt")
    for done in range(0, context, cache.n_batch):
        cache.decode([([prompt], [rng.randrange(n_vocab) for _ in range(min(cache.n_batch, context - done))])])
    own = [cache.block(f"worker {i}") for i in range(n_workers)]
    views = [[prompt, *(other for other in own if other is not one), one] for one in own]
    times = []
    for _ in range(passes + UNCOUNTED):
        feeds = [(view, [rng.randrange(n_vocab)]) for view in views]
        times.append(seconds_of(partial(cache.decode, feeds)))
    for block in (*own, prompt):
        block.free()
    n_cells = context + n_workers * (passes // 2 + UNCOUNTED)
    work = costs.decode(n_workers, n_cells, n_cells)
    seconds = median(times[UNCOUNTED:])
    return {"context": context, "workers": n_workers, "ms": 1e3 * seconds, "bytes": work.n_bytes}


def costs_of(cache: SharedCache, model: Model, device: Device) -> Costs:
    """On a device, all weights that lie there are read: the embeddings, read by rows, lie in the CPU's memory."""
    costs = Costs.of(cache, model.metadata)
    return costs if device.name == "CPU" else replace(costs, weight_bytes=float(device.weight_bytes))


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--n-gpu-layers", type=int, default=-1)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--contexts", type=numbers, default=[1024, 4096])
    parser.add_argument("--workers", type=numbers, default=[1, 2, 4, 8])
    parser.add_argument("--passes", type=int, default=60)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with Model(options.model, n_gpu_layers=options.n_gpu_layers, n_threads=options.threads) as model:
        most = max(model.devices, key=lambda device: device.weight_bytes)
        figures: dict[str, Any] = {"device": str(most.name), "copy_bytes_per_second": copy_bytes_per_second(most.name)}
        print(f"{most}: a copy moves {figures['copy_bytes_per_second'] / 1e9:.1f} GB/s")
        print(f"{'context':>8}{'workers':>8}{'ms':>9}{'GB read':>9}{'GB/s':>8}{'reached':>9}")
        figures["rows"] = []
        for context in options.contexts:
            n_ctx = context + 2 * max(options.workers) * (options.passes + UNCOUNTED) + 1024
            with SharedCache(model, n_ctx) as cache:
                costs = costs_of(cache, model, most)
                for n_workers in options.workers:
                    found = row(cache, costs, context, n_workers, options.passes, model.n_vocab)
                    speed = found["bytes"] / found["ms"] * 1e3
                    found["reached"] = speed / figures["copy_bytes_per_second"]
                    figures["rows"].append(found)
                    print(f"{context:8}{n_workers:8}{found['ms']:9.2f}{found['bytes'] / 1e9:9.3f}{speed / 1e9:8.1f}"
                          f"{found['reached']:9.1%}", flush=True)  # fmt: skip
                    if options.json:
                        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
