"""The layer below: two writers over one KV cache, without Hogwild, layouts and prompts. Blocks and views are yours.

    python examples/by_hand.py [--model FILE] [--passes 96] [TEXT BEGINNING BEGINNING]

TEXT is common to both; each line of a writer begins with a BEGINNING of its own, and each sees what the other one is
writing. A finished line joins what is common.
"""

from __future__ import annotations

import argparse

from hogwild_local import Model, Sampler, SamplingParams, SharedCache
from hogwild_local.engine.default_model import default_model_path

# What the embedded model has learnt: "#2" says that two write and see each other; a line of "?" is the answer.
WORKSHEET = ("#2\na=27+58\nb=a-13^40\nc=11+12+13\nd=c-09", "A:", "B:")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="*", default=WORKSHEET, metavar="TEXT BEGINNING BEGINNING")
    parser.add_argument("--model", default=default_model_path(), help="a GGUF file; without it the embedded model")
    parser.add_argument("--passes", type=int, default=96)
    options = parser.parse_args()
    if len(options.texts) != 3:
        parser.error("a text and two beginnings, or none of them")
    text, *beginnings = options.texts

    with Model(options.model) as model, SharedCache(model, n_ctx=1024) as cache:
        common, *own = (cache.block(name) for name in ("common", "one", "other"))
        # A view is a list of blocks; what is fed goes to the last one, which sees all before it.
        views = [[common, own[1], own[0]], [common, own[0], own[1]]]
        cache.decode([([common], model.tokenize(text))])

        begin = [model.tokenize(beginning, add_special=False) for beginning in beginnings]
        newline = model.tokenize("\n", add_special=False)
        pending = [[*newline, *tokens] for tokens in begin]
        samplers = [Sampler(model, SamplingParams(temperature=0)) for _ in views]
        lines = ["", ""]
        for n_pass in range(1, options.passes + 1):
            # One forward pass for both: each query sees the tokens of this very pass, the other writer's too.
            sampled = cache.next_tokens(list(zip(views, pending, strict=True)), samplers)
            for i, token in enumerate(sampled):
                assert token is not None  # each view has a sampler
                lines[i] += model.detokenize([token])
                pending[i] = [token]
                if lines[i].endswith("\n"):
                    print(f"pass {n_pass:3}  {beginnings[i] + lines[i].rstrip()!r}")  # repr: it may be anything
                    common.append(own[i])  # moved, not computed again: its keys are rotated once
                    pending[i] += begin[i]
                    is_answer, lines[i] = lines[i].startswith("?"), ""
                    if is_answer:
                        print(
                            f"{len(common)} cells hold what is common, {len(own[0])} and {len(own[1])} the open lines"
                        )
                        return
        print("and so on:", lines)


if __name__ == "__main__":
    main()
