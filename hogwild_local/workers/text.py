"""Text as it streams: bytes to characters, stop strings, code and formulas; and text inside text. What streams is fed
piece by piece and costs the length of the piece, never of the text so far."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence

from ..errors import InvalidArgument

# Before a code fence or a formula: quotes and items of lists.
_MARKS = re.compile(r"^(?:\s|>|[-*+]\s|\d{1,9}[.)]\s)*")


class Utf8Stream:
    """Decodes UTF-8 that arrives in any pieces. A byte that can't be part of a character becomes U+FFFD; one
    that can is held until the next piece decides, or flush()."""

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, piece: bytes) -> str:
        """The characters that piece completes."""
        return self._decoder.decode(piece)

    def flush(self) -> str:
        """What an incomplete last character becomes; the stream is new afterwards."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text


class StopStrings:
    """Passes text on until one of the stop strings occurs in it, and never shows any part of one: the end of
    the text is held back while it may be the beginning of a stop string. The earliest occurrence counts.

    Raises InvalidArgument for a stop string that is empty or no string.
    """

    __slots__ = ("_held", "_stops", "found")

    def __init__(self, stops: Sequence[str] = ()) -> None:
        for stop in stops:
            if not isinstance(stop, str) or not stop:
                raise InvalidArgument(f"stop strings must be non-empty strings, not {stop!r}")
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def feed(self, piece: str) -> str:
        """The text that may be shown now. Once .found is set, nothing more is."""
        if not self._stops:
            return piece
        if self.found is not None:
            return ""
        text = self._held + piece
        hits = [(text.find(stop), stop) for stop in self._stops if stop in text]
        if hits:
            at, self.found = min(hits)
            self._held = ""
            return text[:at]
        held = max(self._overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    @property
    def n_held(self) -> int:
        """Characters held back."""
        return len(self._held)

    def flush(self) -> str:
        """The text held back; it was no stop string after all."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Length of the longest end of text that is a beginning of stop."""
        for n in range(min(len(text), len(stop) - 1), 0, -1):
            if text.endswith(stop[:n]):
                return n
        return 0


class OpenBlock:
    """Knows whether Markdown that is shown as it is, a code fence (``` or ~~~) or a formula ($$), is open after the
    complete lines. Marks of quotes and lists may stand before it."""

    __slots__ = ("_line", "_mark")

    # Longer than any line of code or formula needs; keeps a line that never ends from growing.
    _MAX_LINE = 2048
    _FORMULA = "$$"

    def __init__(self) -> None:
        self._mark = ""
        self._line = ""

    @property
    def open(self) -> bool:
        return bool(self._mark)

    def feed(self, piece: str) -> None:
        """Takes the next piece of text."""
        if "\n" not in piece:
            if len(self._line) < self._MAX_LINE:
                self._line += piece
            return
        *lines, rest = (self._line + piece).split("\n")
        for line in lines:
            self._take_line(line)
        self._line = rest

    def _take_line(self, line: str) -> None:
        if not self._mark:
            self._mark = self._opened_by(_MARKS.sub("", line).rstrip())
        elif self._mark == self._FORMULA:
            if line.count(self._FORMULA) % 2:
                self._mark = ""
        else:
            # Only a bare run of at least the opening length closes: "```python" inside a fence is text.
            bare = line.strip().lstrip("> ")
            if bare.startswith(self._mark) and not bare.strip(self._mark[0]):
                self._mark = ""

    def _opened_by(self, line: str) -> str:
        if line.startswith(("```", "~~~")):
            char = line[0]
            return char * (len(line) - len(line.lstrip(char)))
        # In the middle of a line $$ is a formula that ends there, a process number, or a price.
        at_edge = line.startswith(self._FORMULA) or line.endswith(self._FORMULA)
        return self._FORMULA if at_edge and line.count(self._FORMULA) % 2 else ""


class EndOfStep:
    """The end-of-step rule (paper, section 3): a step ends with a token that contains the separator, if the
    text before it ends a sentence and no code fence or formula is open.

    spans_tokens: the vocabulary has no token for the separator, so one that is made of several tokens counts
    too.
    """

    __slots__ = ("_block", "_sentence_end", "_separator", "_spans", "_tail")

    # Enough for the longest end of a sentence with its closing brackets and quotes.
    _TAIL = 64

    def __init__(self, separator: str, sentence_end: re.Pattern[str], spans_tokens: bool) -> None:
        self._separator = separator
        self._sentence_end = sentence_end
        self._spans = spans_tokens
        self.reset()

    def reset(self) -> None:
        """A new step begins."""
        self._tail = ""
        self._block = OpenBlock()

    def feed(self, piece: str) -> bool:
        """Takes the text of one token; True if it ends the step."""
        text = self._tail + piece
        self._tail = text[-self._TAIL :]
        self._block.feed(piece)
        # Where the separator may span tokens, it must still end inside this one.
        n_new = len(piece) + (len(self._separator) - 1 if self._spans else 0)
        if self._separator not in text[max(0, len(text) - n_new) :] or self._block.open:
            return False
        before = text[: text.rindex(self._separator)].rstrip()
        return self._sentence_end.search(before) is not None
