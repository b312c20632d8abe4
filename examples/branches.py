"""A conversation with branches: what they have in common is computed once.

    python examples/branches.py [--model FILE] [FIRST SECOND]

FIRST is asked, then SECOND in its place; on a branch FIRST is asked again.
"""

from __future__ import annotations

import argparse

from hogwild_local import Chat, Hogwild, Run
from hogwild_local.engine.default_model import default_model_path

FIRST = "a=27+58\nb=a-13^40\nc=11+12+13\nd=c-09"
SECOND = "a=27+58\nb=a-13^40\nc=11+12+13\nd=c-19"  # only its last item is another one


def turn(what: str, chat: Chat, run: Run) -> None:
    """Goes through a turn; what it said is then part of the conversation."""
    usage = run.result().usage
    said = chat.messages[-1]["content"] if chat.messages else "nothing"
    print(f"{what:12} {usage.cached_tokens:4} of {usage.prompt_tokens:4} tokens were known: {said!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", default=[FIRST, SECOND], metavar="FIRST SECOND")
    parser.add_argument("--model", default=default_model_path(), help="a GGUF file; without it the embedded model")
    options = parser.parse_args()
    if len(options.questions) != 2:
        parser.error("two questions, or none")
    first, second = options.questions

    with Hogwild(options.model) as hw:
        chat = hw.chat(workers=2, max_passes=256, reply_tokens=64, seed=1)
        turn("first", chat, chat.send(first))
        turn("again", chat, chat.regenerate(seed=2))
        branch = chat.fork()  # from here on they go apart; their cells are shared
        turn("edited", chat, chat.edit(0, second))
        turn("on a branch", branch, branch.regenerate(seed=3))
        print(len(chat.messages), "messages here,", len(branch.messages), "there")


if __name__ == "__main__":
    main()
