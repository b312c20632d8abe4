"""hogwild chat: a conversation on the terminal."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..chat import Chat
from ..errors import HogwildError, InvalidArgument
from ..hogwild import Hogwild
from ..options import RunOptions
from ..workers.layouts import make_layout
from ..workers.run import Run
from .display import LiveOutput, shown
from .grouped import Command, option
from .options import (
    engine_of,
    field_option,
    given,
    load,
    model_path,
    sampling,
    worker_options,
)
from .terminal import Terminated, note, say

HELP = """\
/workers N      so many workers from now on        /layout NAME    what they see of each other
/regen          the last turn again                /undo           the last turn is taken back
/fork           go on in a copy                    /back           return to where the copy was made
/save FILE      all messages, as Markdown or, to a file that ends in .json, as JSON
/help           this                               /quit           end; so does Ctrl+D
Ctrl+C ends what the workers are doing, and keeps what was said before."""


@click.command(cls=Command)
@option("Model", "--system", metavar="TEXT", help="What the model is told before the conversation, beside the rules.")
@field_option("Workers", RunOptions, "workers")
@worker_options
@option("Output", "--plain", is_flag=True, help="Write plain lines also on a terminal.")
@click.pass_context
def chat(ctx: click.Context, /, system: str | None, plain: bool, **options: Any) -> None:
    """Talk with a model that thinks with several workers and then replies. /help lists what can be typed beside
    messages.

    Only what is new of the conversation is computed in each turn.
    """
    engine = engine_of(ctx, options)
    with load(engine, model_path(engine, options), options) as hogwild:
        chosen = given(RunOptions, options) | {"sampling": sampling(options, hogwild.sampling)}
        Talk(hogwild, hogwild.chat(system=system, **chosen), plain).go_on()


class Talk:
    """Lines of the user, and what they do."""

    def __init__(self, hogwild: Hogwild, chat: Chat, plain: bool) -> None:
        self._hogwild, self._chat, self._plain = hogwild, chat, plain
        self._options: dict[str, Any] = {}
        self._before: list[Chat] = []
        """The conversations that this one was copied from."""
        self._commands: dict[str, Callable[[str], object]] = {
            "workers": self._workers,
            "layout": self._layout,
            "regen": lambda _: self._show(self._chat.regenerate(**self._options)),
            "undo": lambda _: self._undo(),
            "fork": lambda _: self._fork(),
            "back": lambda _: self._back(),
            "save": self._save,
            "help": lambda _: say(HELP),
        }

    def go_on(self) -> None:
        """Until /quit, or the end of standard input."""
        is_terminal = sys.stdin.isatty()
        if is_terminal:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  arrow keys, and earlier lines
            note("hogwild: /help lists what can be typed beside messages")
        while (line := _line(is_terminal)) is not None:
            if line.strip() in ("/quit", "/exit"):
                return
            try:
                self._take(line.strip())
            except Terminated:
                raise
            except KeyboardInterrupt:
                note("hogwild: stopped; what was said before stands")
            except HogwildError as error:
                note(f"hogwild: {' '.join(str(error).split())}")

    def _take(self, line: str) -> None:
        name, _, rest = line[1:].partition(" ")
        if line and not line.startswith("/"):
            self._show(self._chat.send(line, **self._options))
        elif name in self._commands:
            self._commands[name](rest.strip())
        elif line:
            raise InvalidArgument(f"there is no /{name}: /help lists what there is")

    def _show(self, run: Run) -> None:
        before = self._chat.messages
        output = shown(run, self._plain)
        with run, output:
            for event in run:
                output.feed(event)
        if isinstance(output, LiveOutput) and self._chat.messages != before:
            say(f"\n{self._chat.messages[-1]['content']}\n")

    def _workers(self, text: str) -> None:
        if not text.isdigit():
            raise InvalidArgument(f"/workers wants a number, not {text!r}")
        self._change(workers=int(text))

    def _layout(self, text: str) -> None:
        self._change(layout=make_layout(text).name)

    def _change(self, **option: Any) -> None:
        """Raises InvalidArgument; nothing is changed then."""
        self._hogwild.chat(**option)  # which checks it
        self._options |= option
        note(f"hogwild: {', '.join(f'{name} {value}' for name, value in self._options.items())}")

    def _undo(self) -> None:
        users = [at for at, message in enumerate(self._chat.messages) if message["role"] == "user"]
        if not users:
            raise InvalidArgument("there is no turn to take back")
        said = self._chat.messages[users[-1]]["content"]
        self._chat = self._chat.fork(users[-1])
        note(f"hogwild: taken back: {said}")

    def _fork(self) -> None:
        self._before.append(self._chat)
        self._chat = self._chat.fork()
        note(f"hogwild: a copy; /back returns to the {len(self._before)}. one before")

    def _back(self) -> None:
        if not self._before:
            raise InvalidArgument("this is no copy")
        self._chat = self._before.pop()
        note(f"hogwild: back, with {len(self._chat.messages)} messages")

    def _save(self, name: str) -> None:
        if not name:
            raise InvalidArgument("/save wants the name of a file")
        messages = self._chat.messages
        as_json = json.dumps(messages, indent=1, ensure_ascii=False) + "\n"
        as_text = "".join(f"## {message['role'].capitalize()}\n\n{message['content']}\n\n" for message in messages)
        try:
            Path(name).write_text(as_json if name.endswith(".json") else as_text, encoding="utf-8")
        except OSError as error:
            raise InvalidArgument(f"{name} cannot be written: {error}") from None
        note(f"hogwild: {len(messages)} messages are in {name}")


def _line(is_terminal: bool) -> str | None:
    """The next one; None: there is none."""
    while True:
        try:
            if is_terminal:
                return input("> ")
            line = sys.stdin.readline()
            return line or None
        except EOFError:
            return None
        except Terminated:
            raise
        except KeyboardInterrupt:
            if not is_terminal:
                raise
            note("\nhogwild: /quit or Ctrl+D ends")
