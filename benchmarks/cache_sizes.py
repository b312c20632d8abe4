"""What keys and values take: bytes a token, as the engine counts them, of the shapes that models are written in.

    python benchmarks/cache_sizes.py [--tokens 8192,32768]

Nothing is measured but sizes: each model has the layers and heads of its shape, and is narrow otherwise. A cache has a
reserve of some percent beside what is shown.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from hogwild_local import Model, SharedCache

sys.path.append(str(Path(__file__).resolve().parent.parent))
from models.large import SHAPES, write_large

TYPES = ("f16", "q8_0")


def cell_sizes(model: Model) -> list[float]:
    """Bytes a token in each of the types."""
    sizes = []
    for kind in TYPES:
        with SharedCache(model, n_ctx=64, type_k=kind, type_v=kind) as cache:
            sizes.append(cache.cell_size()[0])
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="8192,32768", help="contexts, with commas between them")
    contexts = [int(n) for n in parser.parse_args().tokens.split(",")]
    columns = [f"{n:,} tokens, {kind}" for n in contexts for kind in TYPES]
    print("| shape | layers, KV heads | " + " | ".join(columns) + " |\n|---|---|" + "---:|" * len(columns))
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in SHAPES.items():
            path = Path(folder) / "model.gguf"
            write_large(path, replace(shape, arch="qwen3", width=64, feed_forward=64, vocabulary=512))
            with Model(path, n_threads=1, trust=True) as model:
                sizes = cell_sizes(model)
            cells = [f"{n * size / 1e9:.2f} GB" for n in contexts for size in sizes]
            heads = f"{shape.layers}, {shape.kv_heads} of {shape.head_size}"
            print(f"| {name} | {heads} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
