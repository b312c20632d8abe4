"""What a chat template is told beside the messages: whether and how much to think, and what day it is."""

from __future__ import annotations

import re
from datetime import date as Date
from datetime import datetime, time
from functools import partial
from typing import Any

from jinja2 import nodes

from ..errors import InvalidArgument
from .sandbox import TooMuch

# The names that templates give the switch: values for thinking and for none. A template refuses words that it does not
# know, so words are given only where it has one of each; else they are no switch there.
_SWITCHES: dict[bool, dict[str, object]] = {
    True: {"enable_thinking": True, "thinking": True, "reasoning": True},
    False: {"enable_thinking": False, "thinking": False, "reasoning": False, "thinking_budget": 0},
}
_WORDS = {
    "thinking_mode": (("enabled",), ("disabled",)),
    "reasoning_effort": (("high",), ("no_think", "none", "minimal")),
}
# Those of how much to think; its values are the template's.
_EFFORTS = ("reasoning_effort", "reasoning_strength", "thinking_effort")
# Those of whether thoughts of earlier turns stay: told where the messages have any.
_KEEP_THOUGHTS: dict[str, object] = {
    "preserve_thinking": True,
    "keep_past_thinking": True,
    "clear_thinking": False,
    "drop_thinking": False,
    "truncate_history_thinking": False,
    "think_render_option": "all",
}


class Variables:
    """Those of one template."""

    def __init__(self, tree: nodes.Template) -> None:
        constants = {node.value for node in tree.find_all(nodes.Const)}
        names = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "load"}
        self._efforts = [name for name in _EFFORTS if name in names]
        self._switches = {thinking: dict(values) for thinking, values in _SWITCHES.items()}
        for name, words in _WORDS.items():
            on, off = ([word for word in side if word in constants] for side in words)
            if on and off:
                self._switches[True][name], self._switches[False][name] = on[0], off[0]

    @property
    def asks_for_effort(self) -> bool:
        """Whether it asks how much to think."""
        return bool(self._efforts)

    def values(
        self, thinking: bool, date: Date, effort: str | None = None, keep_thoughts: bool = False
    ) -> dict[str, Any]:
        """effort: how much to think, in a word of the template's; keep_thoughts: those of earlier turns are to stay.
        Raises InvalidArgument for an effort where the template asks for none."""
        if effort is not None and not self.asks_for_effort:
            raise InvalidArgument("reasoning_effort: this model's chat template does not ask for any")
        day = datetime.combine(date, time())  # by the hour, a prompt could not be repeated
        return {
            "strftime_now": partial(_strftime, day),
            "date_string": day.strftime("%d %b %Y"),  # these two in llama.cpp's forms
            "datetime": day.strftime("%b %d %Y"),
            **(_KEEP_THOUGHTS if keep_thoughts else {}),
            **self._switches[thinking],
            **(dict.fromkeys(self._efforts, effort) if effort is not None else {}),
        }


def checked_date(value: str | Date | None) -> Date:
    """A day, given as such or as YYYY-MM-DD; None: today. Raises InvalidArgument."""
    if value is None:
        return Date.today()
    try:
        return Date.fromisoformat(value if isinstance(value, str) else value.isoformat()[:10])
    except (AttributeError, TypeError, ValueError):
        raise InvalidArgument(f"date must be a day such as 2026-07-31, not {value!r}") from None


def _strftime(today: datetime, form: str) -> str:
    if re.search(r"%\W*\d{3}", form):
        raise TooMuch(f"a width in the form of a date: {form[:40]!r}")
    return today.strftime(form)
