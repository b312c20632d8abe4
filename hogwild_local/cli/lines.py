"""Lines of a user: with arrow keys, Tab and those of earlier days where there is a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from .terminal import Terminated, note

QUOTE = '"""'
MOST_KEPT = 1000


class Lines:
    """Messages of one line, or of several between two lines of three quotes."""

    def __init__(self, words: Sequence[str], history: Path | None) -> None:
        """words: what Tab completes at a line's beginning; history: where lines are kept; None: nowhere."""
        self.is_terminal = sys.stdin is not None and sys.stdin.isatty()
        self._words, self._history = words, history
        self._readline = _readline() if self.is_terminal else None
        if self._readline is not None:
            self._begin(self._readline)

    def next(self, begun: str = "") -> str | None:
        """None: there are no more. begun: what was typed of it already, which may still be changed."""
        while True:
            try:
                return self._message(begun)
            except EOFError:
                return None
            except Terminated:
                raise
            except KeyboardInterrupt:
                if not self.is_terminal:
                    raise
                note("\nhogwild: /quit or Ctrl+D ends")

    def _message(self, begun: str) -> str:
        line = self._line("> ", begun)
        if not line.lstrip().startswith(QUOTE):
            return line
        text = line.lstrip().removeprefix(QUOTE)
        while not text.rstrip().endswith(QUOTE):
            text += "\n" + self._line("... ")
        return text.rstrip().removesuffix(QUOTE).strip("\n")

    def _line(self, prompt: str, begun: str = "") -> str:
        """Raises EOFError."""
        if not self.is_terminal:
            if sys.stdin is None or not (line := sys.stdin.readline()):
                raise EOFError
            return line.removesuffix("\n")
        if self._readline is None:
            return input(prompt)
        readline = self._readline
        readline.set_startup_hook(lambda: readline.insert_text(begun))
        try:
            line = input(prompt)
        finally:
            readline.set_startup_hook(None)
        if line and self._history is not None:
            with contextlib.suppress(OSError):
                if hasattr(readline, "append_history_file"):
                    readline.append_history_file(1, str(self._history))
                else:  # editline cannot
                    readline.write_history_file(str(self._history))
        return line

    def _begin(self, readline: ModuleType) -> None:
        readline.set_completer_delims(" \t\n")
        readline.set_completer(self._complete)
        if "libedit" in (readline.__doc__ or ""):  # as on macOS
            readline.parse_and_bind("bind ^I rl_complete")
        else:
            readline.parse_and_bind("tab: complete")
            readline.parse_and_bind("set enable-bracketed-paste on")  # Python has it off: each line would be a message
        readline.clear_history()
        if self._history is not None:
            try:
                self._history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._history.touch(mode=0o600)  # it is nobody else's business
                readline.set_history_length(MOST_KEPT)
                readline.read_history_file(str(self._history))
                readline.write_history_file(str(self._history))  # no more than that
            except OSError:
                self._history = None

    def _complete(self, text: str, state: int) -> str | None:
        assert self._readline is not None
        found = [word for word in self._words if word.startswith(text)] if self._readline.get_begidx() == 0 else []
        return found[state] if text and state < len(found) else None


def _readline() -> ModuleType | None:
    """Not all systems have it."""
    try:
        import readline
    except ImportError:
        return None
    return readline
