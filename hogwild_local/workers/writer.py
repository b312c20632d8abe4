"""One worker at work: its name, sampler and text stream, and the state of the step it is writing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from ..engine.protocols import ModelLike, SamplerLike
from ..engine.views import Sampled
from ..events import Reason, Token
from .text import EndOfStep, StopStrings, Utf8Stream

# fmt: off
NAMES = (
    "Alice", "Bob", "Carol", "Dave", "Erin", "Frank", "Grace", "Heidi", "Ivan", "Judy", "Karl", "Laura",
    "Mallory", "Nina", "Oscar", "Peggy", "Quentin", "Rosa", "Sybil", "Trent", "Ursula", "Victor", "Wendy",
    "Xavier", "Yvonne", "Zoe",
)
# fmt: on


def default_names(n: int) -> list[str]:
    """Alice, Bob, Carol, ...; from the 27th on "Worker 27" and so forth."""
    return [NAMES[i] if i < len(NAMES) else f"Worker {i + 1}" for i in range(n)]


def worker_seed(seed: int, worker: int) -> int:
    """The seed of one worker: workers of one run differ, and adding a worker changes none of the others'."""
    digest = hashlib.blake2b(f"{seed}/{worker}".encode(), digest_size=8).digest()
    # 2**32 - 1 means "random" to llama.cpp's samplers.
    return int.from_bytes(digest, "little") % (2**32 - 1)


class Writer:
    """The state of one stream of the model. It knows nothing of blocks and layouts.

    .pending are the tokens to feed next. A worker that has fed all of them samples one more, which takes
    their place; where that token ends the step, the prefix of the next step comes behind it.

    .finished is why the model ended it. .leaving is why it ends after its next pass, in which it samples nothing more:
    the others are still to read what it sampled last.
    """

    def __init__(
        self,
        index: int,
        name: str,
        model: ModelLike,
        sampler: SamplerLike,
        end_of_step: EndOfStep,
        stops: Sequence[str],
        ends_work: Callable[[int], bool],
        closing: int | None = None,
    ) -> None:
        """ends_work: whether a token says that nothing more comes; closing: the one that closes its thoughts, and so
        ends it; None: it samples none."""
        self.index = index
        self.name = name
        self.sampler = sampler
        self.pending: list[int] = []
        self.step = 0
        self.step_tokens = 0
        self.step_ended = False
        self.finished: Reason | None = None
        self.leaving: Reason | None = None
        self._token_bytes = model.token_bytes
        self._ends_work, self._closing = ends_work, closing
        self._end_of_step = end_of_step
        self._utf8 = Utf8Stream()
        self._stops = StopStrings(stops)
        self.prefix = ""
        self._pieces: list[str] = []
        self._n_chars: list[int] = []  # of each token sampled in this step
        self._n_carried = 0  # characters of the step before that were held back at its end

    @property
    def written(self) -> str:
        """What the worker itself wrote of this step, as far as it may be shown."""
        return "".join(self._pieces)

    @property
    def step_text(self) -> str:
        """This step with its prefix, without the white space around it."""
        return (self.prefix + self.written).strip()

    def open_step(self, prefix: str, tokens: Sequence[int]) -> None:
        """Begins the next step with prefix (and its tokens), put into the worker's mouth."""
        self.step += 1
        self.step_tokens = 0
        self.step_ended = False
        self.pending = [*self.pending, *tokens]
        self._end_of_step.reset()
        self.prefix = prefix
        self._pieces = []
        self._n_chars = []
        self._n_carried = self._stops.n_held

    def take(self, sampled: Sampled, n_pass: int) -> Token:
        """The token that was sampled becomes .pending. Sets .step_ended or .finished where it ends something."""
        token = sampled.token
        self.pending = [token]
        self.step_tokens += 1
        if token == self._closing or self._ends_work(token):
            self.finished = "closed" if token == self._closing else "eos"
            return Token(self.name, token, "", n_pass, *sampled[1:])
        piece = self._utf8.feed(self._token_bytes(token))
        self._n_chars.append(len(piece))
        shown = self._stops.feed(piece)
        if self._stops.found is not None:
            self.finished = "stop"
        elif self._end_of_step.feed(piece):
            self.step_ended = True
        self._pieces.append(shown)
        return Token(self.name, token, shown, n_pass, *sampled[1:])

    def let_go(self, n_pass: int) -> Token | None:
        """What was held back for a stop string can't be one any more: a prefix follows."""
        return self._rest(self._stops.flush(), n_pass)

    def end_text(self, n_pass: int) -> Token | None:
        """The worker writes no more: what was held back, if anything."""
        return self._rest(self._stops.feed(self._utf8.flush()) + self._stops.flush(), n_pass)

    def before_stop(self) -> tuple[int, str]:
        """A stop string was found: how many tokens of this step lie before it, and what the token that it begins in
        has of text before it."""
        n_chars = max(0, len(self.written) - self._n_carried)
        kept = at = 0
        while at < n_chars and at + self._n_chars[kept] <= n_chars:
            at += self._n_chars[kept]
            kept += 1
        return kept, self.written[len(self.written) - (n_chars - at) :] if at < n_chars else ""

    def _rest(self, text: str, n_pass: int) -> Token | None:
        self._pieces.append(text)
        return Token(self.name, None, text, n_pass) if text else None
