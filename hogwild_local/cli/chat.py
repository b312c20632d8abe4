"""hogwild chat: a conversation on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from ..chat import Chat
from ..disk import state_folder
from ..errors import HogwildError, InvalidArgument
from ..hogwild import Hogwild
from ..options import RunOptions, Worker
from ..workers.layouts import LAYOUTS
from ..workers.run import Run
from ..workers.transcript import Transcript
from ..workers.writer import default_names
from .grouped import Command, option
from .lines import Lines
from .live import LiveOutput
from .loaded import say_loaded
from .options import engine_of, given, load, model_path, sampling, worker_options
from .report import report_thoughts
from .saved import save
from .session import shown, watch
from .terminal import Terminated, interrupt_calls, note, say
from .workers import parse_worker, shown_worker, who_options, workers

HELP = """\
/workers N    so many workers from now on
/role NAME: TEXT
              what only this worker is told from now on; /role NAME: nothing
/layout NAME  what they see of each other from now on
/regen        the last turn again
/undo         the last turn is taken back
/fork         go on in a copy; /back returns to where it was made
/thoughts     what the workers wrote in the last turn
/save FILE    messages and thoughts, as Markdown; as JSON if FILE ends in .json
/help         this
/quit         end; so does Ctrl+D
Three quotes (\"\"\") begin a message of several lines, and end it.
While they work, a line is said to all of them, and "@Bob ..." to one.
/add NAME (or NAME: ROLE) and /stop NAME change who works. Ctrl+C ends the turn,
and what was said before stands; a second Ctrl+C does not even wait for the end
of the pass."""


@click.command(cls=Command)
@option("Model", "--system", metavar="TEXT", help="What the model is told before the conversation, beside the rules.")
@who_options
@worker_options
@option("Output", "--plain", is_flag=True, help="Write plain lines also on a terminal.")
@option(
    "Output", "--history/--no-history", default=True, help="Keep the lines that are typed, for later conversations."
)
@click.pass_context
def chat(ctx: click.Context, /, system: str | None, plain: bool, history: bool, **options: Any) -> None:
    """Talk with a model that thinks with several workers and then replies. /help lists what can be typed beside
    messages.

    Only what is new of the conversation is computed in each turn.
    """
    engine = engine_of(ctx, options)
    with load(engine, model_path(engine, options), options) as hogwild:
        say_loaded(hogwild, options)
        chosen = given(RunOptions, options)
        chosen |= {"workers": workers(ctx, options), "sampling": sampling(options, hogwild.sampling)}
        talk = Talk(hogwild, hogwild.chat(system=system, **chosen), chosen["workers"], plain)
        talk.go_on(state_folder() / "chat-history" if history else None)


class Talk:
    """Lines of the user, and what they do."""

    def __init__(self, hogwild: Hogwild, chat: Chat, who: int | Sequence[Worker], plain: bool) -> None:
        """who: the workers of its turns, until a line says otherwise."""
        self._hogwild, self._chat, self._plain = hogwild, chat, plain
        self._who, self._options = who, dict[str, Any]()
        self._thoughts: dict[int, Transcript] = {}
        """Of each turn, by how many messages came before its reply."""
        self._last: Transcript | None = None
        self._before: list[tuple[Chat, dict[int, Transcript]]] = []
        """The conversations that this one was copied from."""
        self._typed = ""
        """What was typed of the next line during a turn."""
        self._unanswered: str | None = None
        """The message of a turn that ended without a reply, which is not part of the conversation."""
        self._commands: dict[str, Callable[[str], object]] = {
            "workers": self._workers,
            "role": self._role,
            "layout": self._layout,
            "regen": lambda _: self._again(),
            "undo": lambda _: self._undo(),
            "fork": lambda _: self._fork(),
            "back": lambda _: self._back(),
            "thoughts": lambda _: self._show_thoughts(),
            "save": self._save,
            "help": lambda _: say(HELP),
        }

    def go_on(self, history: Path | None) -> None:
        """Until /quit, or the end of standard input. history: the file that lines are kept in."""
        lines = Lines([f"/{name}" for name in (*self._commands, "quit")], history)
        if lines.is_terminal:
            note("hogwild: /help lists what can be typed beside messages")
        while (line := lines.next(self._typed)) is not None:
            self._typed = ""
            if line.strip() in ("/quit", "/exit"):
                return
            try:
                self._take(line.strip())
            except Terminated:
                raise
            except KeyboardInterrupt:
                note("hogwild: stopped; what was said before stands, and /regen tries again")
            except HogwildError as error:
                note(f"hogwild: {' '.join(str(error).split())}")

    def _take(self, line: str) -> None:
        name, _, rest = line[1:].partition(" ")
        if line and not line.startswith("/"):
            self._send(line)
        elif name in self._commands:
            self._commands[name](rest.strip())
        elif line:
            raise InvalidArgument(f"there is no /{name}: /help lists what there is")

    def _send(self, message: str) -> None:
        run = self._chat.send(message, **self._options)
        self._unanswered = message
        try:
            self._show(run)
        except InvalidArgument:
            self._unanswered = None  # it would be refused again
            raise

    def _again(self) -> None:
        if self._unanswered is not None:
            self._send(self._unanswered)
        else:
            self._show(self._chat.regenerate(**self._options))

    def _show(self, run: Run) -> None:
        output = shown(run, self._plain, of_turn=True)
        try:
            with interrupt_calls(run.cancel):
                watch(run, output)
        finally:
            self._typed = output.typed if isinstance(output, LiveOutput) else ""
            self._last = output.transcript
        if self._last.said is not None:
            self._unanswered = None
            self._thoughts = {**self._thoughts, len(self._chat.messages) - 1: self._last}
        if self._last.reason == "cancelled":
            stands = "what was said before stands" if self._unanswered else "the reply so far stands"
            note(f"hogwild: stopped; {stands}, and /regen tries again")

    def _show_thoughts(self) -> None:
        if self._last is None:
            raise InvalidArgument("there are no thoughts yet")
        from rich.console import Console

        report_thoughts(Console(), self._last)

    def _workers(self, text: str) -> None:
        if not text.isdecimal():
            raise InvalidArgument(f"/workers wants a number, not {text!r}")
        self._change(workers=int(text))

    def _role(self, text: str) -> None:
        who, changed = self._options.get("workers", self._who), parse_worker(text)
        team = [Worker(name) for name in default_names(who)] if isinstance(who, int) else who
        if changed.name not in (names := [worker.name for worker in team]):
            raise InvalidArgument(f"/role wants NAME: TEXT, of one of {', '.join(names)}")
        self._change(workers=[changed if worker.name == changed.name else worker for worker in team])

    def _layout(self, text: str) -> None:
        if text not in LAYOUTS:
            raise InvalidArgument(f"/layout wants one of {', '.join(LAYOUTS)}, not {text!r}")
        self._change(layout=text)

    def _change(self, **option: Any) -> None:
        """Raises InvalidArgument; nothing is changed then."""
        self._hogwild.chat(**option)  # which checks it
        self._options |= option
        note(f"hogwild: {', '.join(f'{name} {_shown(value)}' for name, value in option.items())}")

    def _undo(self) -> None:
        users = [at for at, message in enumerate(self._chat.messages) if message["role"] == "user"]
        if not users:
            raise InvalidArgument("there is no turn to take back")
        said = self._chat.messages[users[-1]]["content"]
        self._chat, self._unanswered = self._chat.fork(users[-1]), None
        self._thoughts = {after: thoughts for after, thoughts in self._thoughts.items() if after < users[-1]}
        note(f"hogwild: taken back: {said}")

    def _fork(self) -> None:
        self._before.append((self._chat, self._thoughts))
        self._chat = self._chat.fork()
        note("hogwild: this is a copy; /back returns to where it was made")

    def _back(self) -> None:
        if not self._before:
            raise InvalidArgument("this is no copy")
        (self._chat, self._thoughts), self._unanswered = self._before.pop(), None
        note(f"hogwild: back, with {len(self._chat.messages)} messages")

    def _save(self, name: str) -> None:
        if not name:
            raise InvalidArgument("/save wants the name of a file")
        messages = self._chat.messages
        save(Path(name).expanduser(), messages, self._thoughts)
        note(f"hogwild: {len(messages)} messages are in {name}")


def _shown(value: object) -> str:
    """An option of the turns to come."""
    return "; ".join(map(shown_worker, value)) if isinstance(value, list) else str(value)
