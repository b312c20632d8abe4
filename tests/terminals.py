"""A program on a terminal of some size, which pyte keeps: what somebody would see of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Self

import pyte

PROGRAM = """
import fcntl, sys, termios, time
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.path.insert(0, {tests!r})
from fakes import FakeEngine
from hogwild_local.cli.main import cli
fake = FakeEngine({scripts})
fake.on_decode = lambda cache: time.sleep({pass_s})
cli(obj=fake.engine, prog_name="hogwild")
"""
MOST_S = 60.0


class Screen(pyte.Screen):
    """With the other screen that programs can have for themselves, which pyte does not know."""

    OTHER = 1049

    def set_mode(self, *modes: int, **settings: bool) -> None:
        if self.OTHER in modes:
            self._kept = [dict(self.buffer[y]) for y in range(self.lines)], self.cursor.x, self.cursor.y
            self.erase_in_display(2)
        super().set_mode(*modes, **settings)

    def reset_mode(self, *modes: int, **settings: bool) -> None:
        super().reset_mode(*modes, **settings)
        if self.OTHER in modes:
            self.erase_in_display(2)
            rows, self.cursor.x, y = self._kept
            self.cursor.y = min(y, self.lines - 1)
            for line, row in enumerate(rows[: self.lines]):
                self.buffer[line].update(row)


class Terminal:
    """`hogwild` with a fake engine whose workers write scripts (see FakeEngine), with 10 ms a pass."""

    def __init__(self, *arguments: str, scripts: str, width: int = 80, height: int = 24, **env: str) -> None:
        self.screen = Screen(width, height)
        self.written = b""
        self._stream = pyte.ByteStream(self.screen)
        self._ours, theirs = pty.openpty()
        self._set_size(width, height)
        code = PROGRAM.format(tests=str(Path(__file__).parent), scripts=scripts, pass_s=0.01)
        usual = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", code, *arguments],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**usual, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", **env},
        )  # fmt: skip
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    @property
    def lines(self) -> list[str]:
        """What is seen."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def settings(self) -> list[object]:
        """Whether it echoes, gives lines, and all that."""
        return termios.tcgetattr(self._ours)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def interrupt(self, number: int = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def resize(self, width: int, height: int) -> None:
        self.screen.resize(height, width)
        self._set_size(width, height)
        self.process.send_signal(signal.SIGWINCH)

    def until(self, text: str, times: int = 1) -> None:
        """Waits until it is seen."""
        end = time.monotonic() + MOST_S
        while "\n".join(self.lines).count(text) < times:
            assert time.monotonic() < end, f"{text!r} is not in\n" + "\n".join(self.lines)
            self._read()

    def until_written(self, data: bytes, times: int) -> None:
        """Waits until the program has written something so often."""
        end = time.monotonic() + MOST_S
        while self.written.count(data) < times:
            assert time.monotonic() < end, self.written[-1000:]
            self._read()

    def ended(self) -> int:
        """Waits for the end of the program."""
        end = time.monotonic() + MOST_S
        while self._read():
            assert time.monotonic() < end, "\n".join(self.lines)
        return self.process.wait(MOST_S)

    def _read(self) -> bool:
        """False: the program has ended."""
        data = b""
        if select.select([self._ours], [], [], 0.05)[0]:
            with contextlib.suppress(OSError):  # the other side is gone
                data = os.read(self._ours, 65536)
            if not data:
                return False
        self.written += data
        self._stream.feed(data)
        return True

    def _set_size(self, width: int, height: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
