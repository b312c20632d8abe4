"""How many characters conversations have that are kept, and all of them together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence


class Sizes:
    """.total is counted as they come and go."""

    def __init__(self) -> None:
        self._of: dict[Hashable, int] = {}
        self.total = 0

    def note(self, name: Hashable, messages: Sequence[Mapping[str, object]]) -> None:
        """It has these messages now."""
        self.forget(name)
        self._of[name] = size = _size_of(messages)
        self.total += size

    def forget(self, name: Hashable) -> None:
        self.total -= self._of.pop(name, 0)


def _size_of(messages: Sequence[Mapping[str, object]]) -> int:
    """About."""
    values = (value for message in messages for value in message.values())
    return sum(len(value) if isinstance(value, str) else len(str(value)) for value in values)
