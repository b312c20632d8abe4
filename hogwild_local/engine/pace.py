"""How many tokens of a long prompt join a pass of others."""

from __future__ import annotations

AIM = 0.8
"""What the tokens may add to the time of the others' pass: it is at most twice as long, with something to spare."""


class Pace:
    """Of one long prompt. The others' pass is measured once without it, for each number of their tokens; from then on
    the tokens that join are as many as the last measurement allows, and at most twice as many as before: time does not
    grow evenly."""

    def __init__(self) -> None:
        self._alone_s: dict[int, float] = {}  # of the others' pass, by their number of tokens
        self._n_next = 0

    def share(self, n_others: int) -> int:
        """How many tokens may join so many others; 0: first a pass without."""
        if n_others not in self._alone_s:
            return 0
        return self._n_next or n_others

    def took(self, n_others: int, n_joined: int, seconds: float) -> None:
        """A pass was measured."""
        if n_joined == 0:
            self._alone_s[n_others] = seconds
        elif n_others in self._alone_s:
            alone = self._alone_s[n_others]
            allowed = n_joined * AIM * alone / max(seconds - alone, 1e-9)
            self._n_next = max(1, int(min(allowed, 2 * n_joined)))
