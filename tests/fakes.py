"""A fake engine for tests of the layers above the extension: real bytes, scripted tokens, and a cache that
keeps the tokens of every block, enforces the rules of a decode, and remembers what every view contained at
every pass.

It enters by the front door: Hogwild(engine=...), the command line's context object.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hogwild_local.engine.devices import Device
from hogwild_local.engine.protocols import Engine, Logits
from hogwild_local.engine.room import usual_n_ctx
from hogwild_local.engine.views import Sampled
from hogwild_local.errors import BatchTooLarge, CacheFull, Closed, InvalidArgument, ModelError
from hogwild_local.options import SamplingParams
from hogwild_local.prompts.style import PromptStyle

BOS, EOS, THINK, THINK_END = 256, 257, 258, 259
SPECIAL = {BOS: "<bos>", EOS: "<eos>", THINK: "<think>", THINK_END: "</think>"}
WORDS = {260: "\n\n", 261: ".\n\n", 262: "!\n\n"}
OWN = 263  # from here on, the tokens that a test names
N_VOCAB = 320

# Texts short enough to write down what a view contains.
TINY_STYLE = PromptStyle.parse(r"""
[rules]
one = "R"
many = "R"
task = "{{ problem }}"
[step]
first = "<{{ name }}1>"
prefix = "<{{ name }}{{ step }}>"
separator = "\n\n"
sentence_end = '[.!]$'
forbidden = ["</think>"]
[redundancy]
question = "again?"
[finisher]
text = '=\boxed{'
[answer]
pattern = '\\boxed\{([^}]*)\}'
closes_with = "}"
example = "E"
[stop]
strings = []
[layout.combined]
opening = "|"
header = "H:"
separator = "S:"
[layout.contiguous]
separator = "S:"
""")
TEMPLATE = "{% for m in messages %}{{ m.role[0] }}={{ m.content }};{% endfor %}"


class FakeModel:
    """A vocabulary of bytes, a few longer tokens that contain an empty line (or none of those), and special
    tokens: also own ones, by name. Those of `shown` are read in every text and seen in it, as llama.cpp's tokens that a
    user defined; those of `ends` end a text."""

    def __init__(
        self,
        chat_template: str | None = TEMPLATE,
        words: bool = True,
        description: str = "fake",
        own: Sequence[str] = (),
        shown: Sequence[str] = (),
        ends: Sequence[str] = (),
    ) -> None:
        self.n_vocab = N_VOCAB
        self.n_ctx_train = 8192
        self.chat_template = chat_template
        self.description = description
        self.metadata: dict[str, str] = {}
        self.bos: int | None = BOS
        self.eos: int | None = EOS
        self.closed = False
        self.devices: list[Device] = []
        self._own = {OWN + i: name for i, name in enumerate(own)}
        self._shown = {token: name for token, name in self._own.items() if name in shown}
        self._ends = {EOS, *(token for token, name in self._own.items() if name in ends)}
        self._words = WORDS if words else {}

    @property
    def special(self) -> dict[int, str]:
        """Those that only a template may write, and what they are called."""
        return SPECIAL | self._own

    def tokenize(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        known = {**self._words, **(self.special if parse_special else self._shown)}
        by_length = sorted(known, key=lambda token: -len(known[token]))
        tokens, at = [BOS] if add_special else [], 0
        while at < len(text):
            token = next((token for token in by_length if text.startswith(known[token], at)), None)
            if token is None:
                tokens += text[at].encode()
                at += 1
            else:
                tokens.append(token)
                at += len(known[token])
        return tokens

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < 256 else (WORDS | self._shown).get(token, "").encode()

    def token_text(self, token: int) -> str:
        return self.special.get(token) or self.token_bytes(token).decode()

    def text(self, tokens: Sequence[int]) -> str:
        """All tokens, special ones too."""
        special = self.special
        pieces = [special[token].encode() if token in special else self.token_bytes(token) for token in tokens]
        return b"".join(pieces).decode(errors="replace")

    def is_eog(self, token: int) -> bool:
        return token in self._ends

    def close(self) -> None:
        self.closed = True


class FakeBlock:
    def __init__(self, cache: FakeCache, name: str) -> None:
        self.cache, self.name = cache, name
        self.tokens: list[int] = []
        self.marks: set[int] = set()
        self.freed = False

    def __len__(self) -> int:
        return len(self.tokens)

    def append(self, other: FakeBlock) -> None:
        assert other is not self
        self.tokens += other.tokens
        other.tokens = []
        self.cache.log.append(("append", self.name, other.name))

    def last_cut(self, n: int) -> int:
        assert 0 <= n <= len(self.tokens)
        return n if self.cache.cuts is None else max([0, *(cut for cut in self._cuts() if cut <= n)])

    def mark(self) -> None:
        self.marks.add(len(self.tokens))

    def _cuts(self) -> set[int]:
        return {len(self.tokens), *self.marks, *range(0, len(self.tokens), self.cache.cuts or 1)}

    def split(self, n: int, name: str = "") -> FakeBlock:
        assert self.last_cut(n) == n
        tail = self.cache.block(name)
        self.tokens, tail.tokens = self.tokens[:n], self.tokens[n:]
        return tail

    def clear(self) -> None:
        self.truncate(0)

    def truncate(self, n: int) -> None:
        assert not self.freed, "truncate of a freed block"
        assert self.last_cut(n) == n
        del self.tokens[n:]

    def free(self) -> None:
        if self.freed:
            raise InvalidArgument(f"block {self.name!r} was freed")
        self.freed = True
        self.cache.blocks.remove(self)


@dataclass
class Feed:
    """One view of one pass: names of its blocks, text of all of them before the pass, tokens fed."""

    names: list[str]
    before: list[str]
    tokens: list[int]


@dataclass
class FakeCache:
    model: FakeModel
    n_ctx: int = 4096
    type_k: str = "f16"
    type_v: str = "f16"
    n_batch: int = 512
    attention: str = "auto"
    n_windows: int | None = None
    n_windowed: int = 2**31  # all it has
    blocks: list[FakeBlock] = field(default_factory=list)
    passes: list[list[Feed]] = field(default_factory=list)
    log: list[tuple[str, ...]] = field(default_factory=list)
    finisher: list[int] = field(default_factory=list)
    on_decode: Callable[[FakeCache], None] = lambda cache: None
    closed: bool = False
    devices: list[Device] = field(default_factory=list)
    cuts: int | None = None  # blocks can be cut at its multiples only, and at marks; None: anywhere
    lock: Any = field(default_factory=threading.RLock)

    @property
    def n_free(self) -> int:
        return self.n_ctx - sum(len(block) for block in list(self.blocks))

    def block(self, name: str, anchored: bool = False) -> FakeBlock:
        if self.closed:
            raise Closed("cache")
        self.blocks.append(FakeBlock(self, name))
        return self.blocks[-1]

    def copy(self, block: FakeBlock, name: str) -> FakeBlock:
        copied = self.block(name)
        copied.tokens = list(block.tokens)
        return copied

    def decode(self, views: Sequence[tuple[Sequence[FakeBlock], Sequence[int]]]) -> Logits:
        with self.lock:
            return self._decode(views)

    def _decode(self, views: Sequence[tuple[Sequence[FakeBlock], Sequence[int]]]) -> Logits:
        if self.closed:
            raise Closed("cache")
        owns = [blocks[-1] for blocks, _ in views]
        assert len({id(own) for own in owns}) == len(owns), "own block of two views"
        for blocks, tokens in views:
            assert len({id(block) for block in blocks}) == len(blocks), "a block twice in a view"
            assert not any(block.freed for block in blocks), "a freed block"
            assert tokens, "no tokens"
            assert all(0 <= token < self.model.n_vocab for token in tokens), "token out of range"
        total = sum(len(tokens) for _, tokens in views)
        if len(views) > 1 and total > self.n_batch:
            raise BatchTooLarge(f"{total} tokens, n_batch is {self.n_batch}")
        if total > self.n_free:
            raise CacheFull(total, self.n_free)
        self.on_decode(self)
        self.passes.append([self._feed(blocks, tokens) for blocks, tokens in views])
        for blocks, tokens in views:
            blocks[-1].tokens += tokens
        logits = np.zeros((len(views), self.model.n_vocab), dtype=np.float32)
        for row, own in zip(logits, owns, strict=True):
            if own.name == "finisher":
                row[self.finisher.pop(0) if self.finisher else ord("?")] = 1
        return logits

    def _feed(self, blocks: Sequence[FakeBlock], tokens: Sequence[int]) -> Feed:
        """The prompt as one block, shared, in however many it lies."""
        n_prompt = sum(block.name == "prompt" for block in blocks)
        assert [block.name for block in blocks[:n_prompt]] == ["prompt"] * n_prompt, "a prompt behind others"
        parts = [list(blocks[: n_prompt + 1]), *([block] for block in blocks[n_prompt + 1 :])]
        texts = [self.model.text([token for block in part for token in block.tokens]) for part in parts]
        return Feed([part[-1].name for part in parts], texts, list(tokens))

    def prefill(self, views: Sequence[Any], n_later: int) -> None:
        for view in views:
            self.decode([view])

    def next_tokens(self, views: Sequence[Any], samplers: Sequence[FakeSampler | None]) -> list[int | None]:
        rows = self.decode(views)
        return [None if sampler is None else sampler.sample(row) for sampler, row in zip(samplers, rows, strict=True)]

    def sampled(
        self, views: Sequence[Any], samplers: Sequence[FakeSampler | None], n_top: int | None
    ) -> list[Sampled | None]:
        """A token is as likely as its number says."""
        tokens = self.next_tokens(views, samplers)
        top = [(token, -float(token)) for token in range(n_top or 0)]
        return [None if token is None else Sampled(token, -float(token), top) for token in tokens]

    def close(self) -> None:
        self.closed = True


class FakeSampler:
    """Plays a script of tokens, then the filler; without a script, letters that depend on the seed."""

    def __init__(self, params: SamplingParams, script: Sequence[int] | None, filler: int) -> None:
        self.params = params
        self.closed = False
        self.is_finisher = params.seed is None  # it is greedy
        self._script = None if script is None else list(script)
        self._filler = filler
        self._random = random.Random(params.seed)

    def sample(self, logits: Logits) -> int:
        assert not self.closed
        assert logits.shape == (N_VOCAB,)
        if self.is_finisher:
            return int(logits.argmax())
        if self._script is None:
            return self._random.choice(b"abcdefgh")
        return self._script.pop(0) if self._script else self._filler

    def close(self) -> None:
        self.closed = True


class FakeEngine:
    """Makes an Engine whose worker i writes scripts[i] (a text, tokens, or None for seeded letters)."""

    def __init__(
        self,
        *scripts: str | Sequence[int] | None,
        finisher: str = "",
        filler: int = ord("x"),
        model: FakeModel | None = None,
        cuts: int | None = None,
    ) -> None:
        self.model = model or FakeModel()
        self.finisher, self.cuts = finisher, cuts
        self.filler = filler
        self.cache: FakeCache | None = None
        self.samplers: list[FakeSampler] = []
        self.on_decode: Callable[[FakeCache], None] = lambda cache: None
        self.model_arguments: dict[str, object] = {}
        self._scripts = [self._tokens(script) for script in scripts]
        self.engine = Engine(self._load, self._make_cache, self._make_sampler, lambda: Path("embedded.gguf"))

    @property
    def n_open(self) -> int:
        """Blocks and samplers that are not freed, but for prompts that are kept for later runs."""
        blocks = sum(block.name != "prompt" for block in self.cache.blocks) if self.cache else 0
        return blocks + sum(not sampler.closed for sampler in self.samplers)

    def again(self) -> None:
        """The next run plays the scripts from the beginning."""
        assert self.n_open == 0
        self.samplers = []

    def _tokens(self, script: str | Sequence[int] | None) -> list[int] | None:
        if isinstance(script, str):
            return self.model.tokenize(script, add_special=False, parse_special=True)
        return None if script is None else list(script)

    def _load(self, path: Path, **arguments: object) -> FakeModel:
        if str(path).startswith("missing"):
            raise ModelError(f"{path}: no such file")
        self.model_arguments = {"path": path, **arguments}
        return self.model

    def _make_cache(self, model: FakeModel, **arguments: Any) -> FakeCache:
        if arguments.get("n_ctx") is None:
            arguments["n_ctx"] = usual_n_ctx(model.n_ctx_train, lambda share, n: n)
        self.cache = FakeCache(model, **arguments)
        self.cache.cuts = self.cuts
        self.cache.finisher = self._tokens(self.finisher) or []
        self.cache.on_decode = lambda cache: self.on_decode(cache)
        return self.cache

    def _make_sampler(self, model: FakeModel, params: SamplingParams) -> FakeSampler:
        index = sum(not sampler.is_finisher for sampler in self.samplers)
        script = self._scripts[index] if index < len(self._scripts) else None
        self.samplers.append(FakeSampler(params, script, self.filler))
        return self.samplers[-1]
