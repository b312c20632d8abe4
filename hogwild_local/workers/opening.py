"""The tokens that a run begins with, known before it holds anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ..engine.protocols import ModelLike
from ..errors import InvalidArgument
from ..options import Worker
from ..prompts.prompt import Prompt, inner_tokens
from ..prompts.readable import check_readable
from ..prompts.style import Wording
from .settings import RunSettings

REPLY_KEPT = 256
"""Cells that are kept for a reply. A longer one takes what is left."""


@dataclass(frozen=True, slots=True)
class Opening:
    """prompt, header, separator and roles are prefilled, and firsts are what each worker feeds first; finisher asks for
    the answer, and reply opens the reply, whose text is reply_text."""

    prompt: list[int]
    header: list[int]
    separator: list[int]
    roles: list[list[int]]
    firsts: list[list[int]]
    finisher: list[int]
    reply_text: str
    reply: list[int]
    n_closing: int
    """Cells for finisher and reply, without the workers' last tokens; 0: there is neither."""

    @classmethod
    def of(cls, model: ModelLike, prompt: Prompt, closing: str, wording: Wording, settings: RunSettings) -> Self:
        """Tokenizes. closing: what closes thoughts. Raises InvalidArgument if there is nothing to go on from."""
        tokens = prompt.tokens(model)
        roles = [role_tokens(model, wording, worker) for worker in settings.workers]
        firsts = [inner_tokens(model, wording.first(index)) for index in range(len(roles))]
        for role, first in zip(roles, firsts, strict=True):
            if role and not first:  # it goes on from its role
                first.append(role.pop())
        if not all(firsts):
            if not tokens:
                raise InvalidArgument("prompt must not be empty: the model has nothing to go on from")
            # Somebody has no words of its own to begin with: all go on from the prompt's last token.
            tokens, firsts = tokens[:-1], [[tokens[-1], *first] for first in firsts]
        finisher = inner_tokens(model, wording.style.finisher.text)
        reply_text = wording.reply(closing)
        reply = inner_tokens(model, reply_text, parse_special=True)
        n_closing = len(finisher) + settings.finisher_tokens if settings.finisher_tokens else 0
        if settings.reply_tokens:
            n_closing += len(reply) + min(settings.reply_tokens, REPLY_KEPT)
        return cls(
            tokens,
            inner_tokens(model, wording.layout.header),
            inner_tokens(model, wording.layout.separator),
            roles,
            firsts,
            finisher,
            reply_text,
            reply,
            n_closing,
        )

    @property
    def n_prompt(self) -> int:
        """Tokens of the built-in layouts' prefills."""
        return sum(map(len, (self.prompt, self.header, self.separator, *self.roles)))

    def kept(self, n_workers: int) -> int:
        """Cells that are kept for the end: of finisher and reply, and of n workers' last tokens, which these read."""
        return self.n_closing + n_workers if self.n_closing else 0

    def least(self, n_prompt: int) -> int:
        """Cells without which the run can't begin."""
        return n_prompt + len(self.firsts[0]) + self.kept(len(self.firsts))

    def wanted(self, n_prompt: int) -> int:
        """Cells with which all workers begin."""
        return n_prompt + sum(map(len, self.firsts)) + self.kept(len(self.firsts))


def role_tokens(model: ModelLike, wording: Wording, worker: Worker) -> list[int]:
    """What this worker alone reads; none if it has no role. Raises InvalidArgument if the model cannot read it."""
    if worker.role is None:
        return []
    check_readable(model, [worker.role], f"role of worker {worker.name!r}")
    return inner_tokens(model, wording.role(worker.name, worker.role))
