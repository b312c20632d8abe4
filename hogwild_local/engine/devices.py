"""What lies on which device: layers, weights, keys and values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

PlacementRow: TypeAlias = tuple[str, str, int, int, bool]
"""Device, its description, layer or -1, bytes, whether our CPU kernel attends to it: struct hw_placement."""

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Device:
    """What one device holds. name: ggml's ("CPU", "CUDA0", "RPC0"); description: its own, or a server's address;
    layers: those whose weights lie there; has_rest: weights of no layer too (embeddings, output); cache_layers: those
    whose keys and values lie there; fused_layers: those of them that our CPU kernel attends to."""

    name: str
    description: str
    layers: tuple[int, ...] = ()
    has_rest: bool = False
    weight_bytes: int = 0
    cache_layers: tuple[int, ...] = ()
    cache_bytes: int = 0
    fused_layers: tuple[int, ...] = ()

    def __str__(self) -> str:
        parts = []
        if self.weight_bytes:
            what = [f"layers {_ranges(self.layers)}"] * bool(self.layers) + ["embeddings or output"] * self.has_rest
            parts.append(f"{' and '.join(what)}: {self.weight_bytes / MIB:.1f} MiB of weights")
        if self.cache_bytes:
            is_fused = self.fused_layers == self.cache_layers
            kernel = "fused" if is_fused else "ggml's" if not self.fused_layers else "mixed"
            parts.append(
                f"keys and values of layers {_ranges(self.cache_layers)}: {self.cache_bytes / MIB:.1f} MiB, "
                f"{kernel} attention"
            )
        return f"{self.name} ({self.description}): {'; '.join(parts) or 'nothing'}"


def devices_of(weights: Iterable[PlacementRow], cache: Iterable[PlacementRow] = ()) -> list[Device]:
    """The devices that hold something, those without the CPU first."""
    found: dict[str, Device] = {}
    for name, description, layer, n_bytes, _ in weights:
        device = found.get(name) or Device(name, description)
        found[name] = replace(
            device,
            layers=device.layers if layer < 0 else tuple(sorted({*device.layers, layer})),
            has_rest=device.has_rest or layer < 0,
            weight_bytes=device.weight_bytes + n_bytes,
        )
    for name, description, layer, n_bytes, is_fused in cache:
        device = found.get(name) or Device(name, description)
        found[name] = replace(
            device,
            cache_layers=tuple(sorted({*device.cache_layers, layer})),
            cache_bytes=device.cache_bytes + n_bytes,
            fused_layers=(*device.fused_layers, layer) if is_fused else device.fused_layers,
        )
    return _cpu_last(found.values())


def merged(weights: Sequence[Device], cache: Sequence[Device]) -> list[Device]:
    """Those of a model and those of its cache as one list."""
    by_name = {device.name: device for device in weights}
    for device in cache:
        base = by_name.get(device.name) or Device(device.name, device.description)
        by_name[device.name] = replace(
            base,
            cache_layers=device.cache_layers,
            cache_bytes=device.cache_bytes,
            fused_layers=device.fused_layers,
        )
    return _cpu_last(by_name.values())


def _cpu_last(devices: Iterable[Device]) -> list[Device]:
    return sorted(devices, key=lambda device: (device.name == "CPU", device.name))


def _ranges(layers: Sequence[int]) -> str:
    """0-3, 5"""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and runs[-1][1] == layer - 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
