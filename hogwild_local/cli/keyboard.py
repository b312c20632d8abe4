"""What somebody types on a terminal while a run goes on: lines as they are entered, and what of one is there so far."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import select
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Self

from .suspension import in_foreground

_KEYS = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.|[^\[O])|\x1b.?$", re.DOTALL)
"""Escape sequences: arrow keys and the like, which do nothing here."""


class Line:
    """A line while it is typed, of characters as they come from a terminal."""

    def __init__(self, entered: Callable[[str], bool]) -> None:
        """entered: takes a line, or not: then it stays to be changed."""
        self.text, self._entered = "", entered

    def feed(self, typed: str) -> None:
        for key in _KEYS.sub("", typed):
            match key:
                case "\r" | "\n":
                    if self.text.strip() and self._entered(self.text):
                        self.text = ""
                case "\x7f" | "\b":
                    self.text = self.text[:-1]
                case "\x15":  # Ctrl+U
                    self.text = ""
                case "\x17":  # Ctrl+W
                    self.text = re.sub(r"\S*\s*$", "", self.text)
                case _ if key.isprintable():
                    self.text += key


class Keyboard(AbstractContextManager["Keyboard"]):
    """Reads standard input, a terminal, in a thread of its own. The terminal echoes nothing and gives each key at once
    meanwhile; Ctrl+C stays a signal. Where there is no such terminal it hears nothing."""

    def __init__(self, entered: Callable[[str], bool]) -> None:
        """entered: called with each line, from that thread; whether it takes it."""
        self._line = Line(entered)
        self._open = ExitStack()
        self.hears = False
        """There is a terminal that it listens to."""

    @property
    def typed(self) -> str:
        """What there is of a line that is not entered yet."""
        return self._line.text

    def __enter__(self) -> Self:
        with contextlib.suppress(ImportError, OSError, ValueError, AttributeError):  # closed, or no real file
            self._listen(sys.stdin.fileno())
        return self

    def __exit__(self, *_: object) -> None:
        self.hears = False
        self._open.close()

    def _listen(self, terminal: int) -> None:
        """Raises ImportError or OSError where there is no terminal that could be listened to."""
        import termios
        import tty

        if not in_foreground(terminal):
            return
        before = termios.tcgetattr(terminal)
        self._open.callback(termios.tcsetattr, terminal, termios.TCSADRAIN, before)
        tty.setcbreak(terminal)
        end, wake = os.pipe()
        self._open.callback(os.close, end)
        thread = threading.Thread(target=self._read, args=(terminal, end), daemon=True, name="keyboard")
        self._open.callback(thread.join)
        self._open.callback(os.close, wake)  # first of all: the thread sees it, and ends
        thread.start()
        self.hears = True

    def _read(self, terminal: int, end: int) -> None:
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        while end not in (ready := select.select([terminal, end], [], [])[0]):
            data = os.read(terminal, 4096) if ready else b""
            if not data:
                return
            self._line.feed(decode(data))
