"""A layout of one's own: who sees what of the others. In a chain, a worker sees what its neighbour is writing.

    python examples/own_layout.py [--model FILE] [--workers 4] [PROMPT]

The same prompt is worked on in the chain and in the built-in layouts.
"""

from __future__ import annotations

import argparse

from hogwild_local import Hogwild
from hogwild_local.engine.default_model import default_model_path
from hogwild_local.workers.layouts import Block, Combined


class Chain(Combined):
    """Finished steps are everybody's history, as in the combined layout, whose words it shares (its name is still
    "combined"). Of the unfinished ones a worker sees that of the worker before it; the first sees the last one's."""

    def view(self, worker: int) -> list[Block]:
        before = (worker - 1) % len(self.own)
        neighbour = [self.own[before]] if before != worker else []
        # Whatever a layout shows: the history first, the worker's own block last, and no block twice.
        return [*self.history, *self.header, *neighbour, *self.separator, self.own[worker]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt", nargs="?", default="a=27+58\nb=a-13^40\nc=11+12+13\nd=c-09\ne=90-27^70\nf=45+45-01")
    parser.add_argument("--model", default=default_model_path(), help="a GGUF file; without it the embedded model")
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()

    with Hogwild(options.model) as hw:
        for layout in (Chain, "combined", "interleaved", "contiguous"):
            result = hw.generate(options.prompt, workers=options.workers, layout=layout, max_passes=512, seed=1)
            name = layout if isinstance(layout, str) else layout.__name__
            tokens = result.usage.completion_tokens
            print(f"{name:12} {result.timings.passes:4} passes, {tokens:5} tokens: {result.answer or result.reason!r}")


if __name__ == "__main__":
    main()
