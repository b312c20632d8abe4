"""Text for people. All that a command shows goes through printable(), here or in display.py: a model, a file or an
error that quotes one must not be able to write escape sequences, which a terminal obeys."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

import click

# Control characters but line ends and tabs, and halves of surrogate pairs, which no terminal can be sent.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    """text without control characters other than line ends and tabs."""
    return _CONTROL.sub("\ufffd", text.replace("\r", ""))


def say(text: str) -> None:
    """A line on standard output."""
    click.echo(printable(text))


def note(text: str, end: str = "\n") -> None:
    """A line on standard error: what is not the result."""
    click.echo(printable(text) + end, err=True, nl=False)


@contextlib.contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Shows Python's warnings as lines of this command, without file and line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        note(f"hogwild: {warning.message}")


class Terminated(KeyboardInterrupt):
    """SIGTERM, or the terminal was closed: all is cleaned up as after Ctrl+C. .number is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Raises Terminated where SIGTERM or SIGHUP would end the process at once, with the cursor hidden."""
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in names:
            number = signal.Signals[name]
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP: so do we
                before[number] = signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interrupt_calls(cancel: Callable[[], object]) -> Iterator[None]:
    """Lets the first Ctrl+C call something; the next one is KeyboardInterrupt again."""
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or usual is not signal.default_int_handler:
        yield
        return

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(number, usual)
        cancel()

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(number)
