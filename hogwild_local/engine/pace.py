"""How many tokens of prompts join a pass of others."""

from __future__ import annotations

AIM = 0.8
"""What the tokens of one prompt may add to the time of the others' pass: it is at most twice as long, with something to
spare."""

FURTHER = 2.0
"""And each further prompt that waits, in such times: all of them wait for each pass that is not theirs, and the sooner
they write, the more writers share a pass."""

TYPICAL = 32
"""A part that nobody decodes beside tells what a token costs if it is not smaller."""

STEPS = (4, 32)
"""Rows of a pass come in these steps (cpp/engine/pass-size.h): in the first below the second, else in the second."""


class Pace:
    """Of one cache. For each prompt the others' pass is measured once without it, for each number of their tokens. What
    a token of prompts costs is remembered from the last pass that had some; at most twice as many join as then did.
    Rows come in steps: what a pass takes less or more than allowed is made up for by the next ones."""

    def __init__(self) -> None:
        self._alone_s: dict[int, float] = {}  # of the others' pass, by their number of tokens
        self._token_s = 0.0
        self._n_last = 0
        self._left = 0.0  # tokens that were allowed and did not join; negative: that joined and were not
        self._prompt: object = None

    def share(self, prompt: object, n_others: int, n_prompts: int) -> int:
        """How many tokens may join so many others, where so many prompts wait and this one is the first; 0: first a
        pass without."""
        if prompt is not self._prompt:
            self._prompt, self._alone_s = prompt, {}  # another time, with other contexts
        if n_others not in self._alone_s:
            return 0
        if not self._n_last:
            return full_rows(0, n_others + 1) - n_others
        allowed = (AIM + FURTHER * (n_prompts - 1)) * self._alone_s[n_others] / max(self._token_s, 1e-9)
        allowed = min(allowed, 2 * self._n_last) + self._left
        n = full_rows(n_others + int(allowed), n_others + 1) - n_others if allowed >= 1 else 0
        self._left = max(-STEPS[1], min(allowed - n, STEPS[1]))
        return n

    def took(self, n_others: int, n_joined: int, seconds: float) -> None:
        """A pass was measured, of so many tokens of others and so many of prompts."""
        if not n_joined:
            self._alone_s[n_others] = seconds
        elif n_others in self._alone_s or (not n_others and n_joined >= TYPICAL):
            self._n_last = n_joined
            self._token_s = max(seconds - self._alone_s.get(n_others, 0.0), 0.0) / n_joined


def full_rows(n: int, least: int = 0) -> int:
    """The largest pass of at most n tokens, or the smallest of at least so many, that computes no row for nothing."""
    small, large = STEPS
    step = small if max(n, least) < large else large
    return max(n // step, -(-least // step)) * step
