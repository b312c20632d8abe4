"""What is computed of a prompt that is said again: in a second call, in later turns of a conversation, on branches.

    python benchmarks/prompt_reuse.py model.gguf [--tokens 4000] [--workers 2] [--passes 4] [--reply 32] [--forks 4]
        [--threads 2]

Each line is a run: the tokens of its prompt, how many of them earlier runs have computed, how many it has computed, how
many are new (of a conversation: what has been said since the turn before, with what the template puts around it), and
the time in which it was prefilled, also as a part of the first run's. cells: all that the cache holds after it.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence

from hogwild_local import Chat, Hogwild, Result

HEAD = "| run | prompt | cached | computed | new | prefill ms | of the first | cells |\n|---|" + "---:|" * 7


def document(hogwild: Hogwild, n_tokens: int, seed: int) -> str:
    """Random words, with the rules about as many tokens."""
    chance, words = random.Random(seed), ["So:"]
    while hogwild.count_tokens(" ".join(words)) < n_tokens:
        words += ["".join(chance.choices("abcdefghijklmnop", k=chance.randrange(2, 8))) for _ in range(50)]
    return " ".join(words)


class Table:
    """Prints a line for each run."""

    def __init__(self, hogwild: Hogwild) -> None:
        self._hogwild, self._first_ms = hogwild, 0.0
        print(HEAD, flush=True)

    def line(self, name: str, results: Sequence[Result], n_new: int) -> None:
        """results: of one run, or of several, which are added up."""
        total, cached = (
            sum(getattr(result.usage, of) for result in results) for of in ("prompt_tokens", "cached_tokens")
        )
        ms = sum(result.timings.prompt_ms for result in results)
        self._first_ms = self._first_ms or ms
        cells = self._hogwild.n_ctx - self._hogwild._cache.n_free  # prompts that are kept count as free elsewhere
        part = f"{100 * ms / self._first_ms:.2f} %"
        print(f"| {name} | {total} | {cached} | {total - cached} | {n_new} | {ms:.0f} | {part} | {cells} |", flush=True)


def turns(table: Table, hogwild: Hogwild, chat: Chat, text: str) -> None:
    """A conversation of three turns, the last one again."""
    n_before, result = 0, None
    for number, said in enumerate((text, "And why?", "Is that so?"), 1):
        result = chat.send(said).result()
        n_prompt = result.usage.prompt_tokens
        table.line(f"turn {number}", [result], n_prompt - n_before)
        n_before = n_prompt
    table.line("turn 3 again", [chat.regenerate(seed=2).result()], 0)


def measure(hogwild: Hogwild, options: argparse.Namespace) -> None:
    settings = {"workers": options.workers, "max_passes": options.passes, "reply_tokens": options.reply, "seed": 1}
    hogwild.generate("Warm up.", max_passes=1, reply=False, cache_prompt=False)
    table = Table(hogwild)
    text = document(hogwild, options.tokens, 1)
    first = hogwild.generate(text, **settings)
    table.line("first call", [first], first.usage.prompt_tokens)
    table.line("second call", [hogwild.generate(text, **settings)], 0)
    chat = hogwild.chat(**settings)
    turns(table, hogwild, chat, document(hogwild, options.tokens, 2))
    forks = [chat.fork() for _ in range(options.forks)]
    before = hogwild.count_tokens(chat.messages[:-1], workers=options.workers)
    results = [fork.send(f"What of {number}?").result() for number, fork in enumerate(forks)]
    after = [hogwild.count_tokens(fork.messages[:-1], workers=options.workers) for fork in forks]
    table.line(f"{options.forks} forks, a turn each", results, sum(after) - options.forks * before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    numbers = {"tokens": 4000, "workers": 2, "passes": 4, "reply": 32, "forks": 4, "threads": 2}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    n_ctx = 3 * options.tokens + 4096
    with Hogwild(options.model, n_ctx=n_ctx, n_threads=options.threads, trust=True) as hogwild:
        measure(hogwild, options)


if __name__ == "__main__":
    main()
