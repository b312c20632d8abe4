"""Parts what a reply says, as it streams, from the calls of tools that it makes."""

from __future__ import annotations

from ..forms.calls import Call
from ..forms.reply_form import ReplyForm
from .text import StopStrings


class CallStream:
    """Passes text on until calls may begin, and never shows any part of one: they are read when the reply has ended.
    What cannot be read as calls is shown then."""

    def __init__(self, form: ReplyForm) -> None:
        self._form = form
        self._openings = StopStrings(form.openings)
        self._text = ""
        self._n_shown = 0
        self._may_hide = bool(form.hidden)

    def feed(self, piece: str) -> str:
        """The text that may be shown now."""
        if not self._form.family:
            return piece
        self._text += piece
        if self._may_hide:
            if len(self._text) < len(self._form.hidden) and self._form.hidden.startswith(self._text):
                return ""
            piece, self._may_hide = self._text, False
            if self._text.startswith(self._form.hidden):
                piece = self._text = self._text[len(self._form.hidden) :]
        shown = self._openings.feed(piece)
        self._n_shown += len(shown)
        return shown

    def end(self) -> tuple[str, list[Call]]:
        """The reply has ended: what is still to be shown, and its calls."""
        said, calls = self._form.read(self._text)
        return said[self._n_shown :] if self._form.family else "", calls
