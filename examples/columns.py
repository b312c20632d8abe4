"""What each worker writes, side by side and live.

python examples/columns.py [--model FILE] [--workers 3] [PROMPT]
"""

from __future__ import annotations

import argparse

from rich.columns import Columns
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from hogwild_local import Hogwild
from hogwild_local.engine.default_model import default_model_path
from hogwild_local.events import Answer, RunStarted, StepStarted, Token


def harmless(words: str) -> str:
    """Without control characters: a model may write those that move the cursor."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt", nargs="?", default="a=27+58\nb=a-13^40\nc=11+12+13\nd=c-09\ne=90-27^70")
    parser.add_argument("--model", default=default_model_path(), help="a GGUF file; without it the embedded model")
    parser.add_argument("--workers", type=int, default=3)
    options = parser.parse_args()

    columns: dict[str, Text] = {}
    with (
        Hogwild(options.model) as hw,
        Live(refresh_per_second=20) as live,
        hw.stream(options.prompt, workers=options.workers, seed=1) as run,
    ):
        for event in run:
            match event:
                case RunStarted():
                    columns = {name: Text() for name in event.workers}
                case StepStarted(worker=name, text=words):  # put into its mouth, so shown faintly
                    columns[name].append(words, style="dim")
                case Token(worker=str() as name, text=words):
                    columns[name].append(harmless(words))
                case Answer(text=answer):
                    live.console.print(Text(f"The answer is {harmless(answer)}"))
            live.update(Columns([Panel(text, title=name) for name, text in columns.items()], expand=True))


if __name__ == "__main__":
    main()
