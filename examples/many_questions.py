"""Many questions at once, in coroutines: their runs share forward passes, and one that takes too long is given up.

python examples/many_questions.py [--model FILE] [--seconds 60] [PROMPT ...]
"""

from __future__ import annotations

import argparse
import asyncio
from time import perf_counter

from hogwild_local import Hogwild
from hogwild_local.engine.default_model import default_model_path

SHEETS = [f"a={n}7+08\nb=a-05^40\nc=b+01" for n in range(1, 9)]


async def ask(hw: Hogwild, prompt: str, seconds: float) -> None:
    try:
        # The prompt that all have in common is computed once, by whoever comes first.
        result = await asyncio.wait_for(hw.agenerate(prompt, workers=2, max_passes=512, seed=1), seconds)
    except TimeoutError:  # the task was cancelled, and its run has ended with it
        print(f"{prompt!r}: nobody knew in {seconds:g} s", flush=True)
    else:
        said = result.answer or result.reply or f"no answer ({result.reason})"
        print(f"{prompt!r}: {said!r} after {result.timings.passes} passes", flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", nargs="*", default=SHEETS, metavar="PROMPT")
    parser.add_argument("--model", default=default_model_path(), help="a GGUF file; without it the embedded model")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each")
    options = parser.parse_args()

    start = perf_counter()
    with Hogwild(options.model) as hw:
        async with asyncio.TaskGroup() as tasks:
            for prompt in options.prompts:
                tasks.create_task(ask(hw, prompt, options.seconds))
    print(f"{len(options.prompts)} questions in {perf_counter() - start:.2f} s")


if __name__ == "__main__":
    asyncio.run(main())
