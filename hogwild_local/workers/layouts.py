"""Layouts: which blocks a worker sees, in which order, and what happens when one of its steps ends (paper,
appendix A).

    contiguous    prompt, others' blocks, [separator], own
    interleaved   prompt + history, own
    combined      prompt + history, [header], others' current steps, [separator], own

Others come in ascending order; the own block is always last. Header and separator are prefilled alone, once. What
earlier runs have computed of the prompt stands in blocks before the run's own part of it, which the history follows.
Finished steps are moved, never computed again. To write a layout, subclass Layout or one of the three.

What the user says is computed once, behind the history in a block of its own, and then moved to the end of the history
like a finished step; in the contiguous layout, whose history is the prompt, it is all that follows that. So every view
has it, of any layout, and nobody's step is cut: it stands between steps. The role of a worker is a block that its view
alone has, put right behind the history, whatever the layout; it is prefilled behind the history, once.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, TypeAlias

from ..engine.protocols import CacheLike
from ..errors import Busy, Closed, HogwildError, InvalidArgument
from .held import free_all

Block: TypeAlias = Any  # a CacheBlock, or a fake one: whatever cache.block() gives


def free_block(block: Block) -> None:
    """Frees a block, if it is not free already."""
    # It was freed, but Ctrl+C came before that was noted; or the cache was closed, and nothing is left to free.
    with contextlib.suppress(InvalidArgument, Closed):
        block.free()


class Before(Protocol):
    """What earlier runs have computed: see Place. blocks stand before a run's own."""

    @property
    def blocks(self) -> list[Block]: ...
    def recall(self, cache: CacheLike, tokens: Sequence[int], name: str) -> Block | None: ...
    def keep(self, block: Block, tokens: Sequence[int]) -> bool: ...


class Layout(ABC):
    """The blocks of one run. The run calls open(), feeds .prefills, then asks for views and tells of ended
    steps.

    Validity: between open() and close(). A view stays valid until the next end_step(), drop_step(), retire() or
    join() of any worker; then ask again. Only the run feeds tokens. A layout serves one run at a time (Busy
    otherwise) and as many as you like one after the other. Unless said otherwise nothing here raises, given a
    worker in 0..n_workers-1.
    """

    name: ClassVar[str] = "custom"
    """Which texts of the prompt style go with this layout (its table [layout.NAME]; none: no texts)."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        """Every block of the run, in order of creation; freed by close()."""
        self.prefills: list[tuple[Block, Sequence[int]]] = []
        """What to feed before the first pass, where a block has not got it yet: each in its prefill_view(), in this
        order."""
        self.behind: list[Block] = []
        """Blocks that are fed behind the history: what they hold is of use to nobody else."""
        self._cache: CacheLike | None = None
        self._before: Before | None = None

    def open(
        self,
        cache: CacheLike,
        n_workers: int,
        prompt: Sequence[int],
        header: Sequence[int] = (),
        separator: Sequence[int] = (),
        before: Before | None = None,
        roles: Sequence[Sequence[int]] = (),
    ) -> None:
        """Makes the blocks: a shared one for the prompt, one of each worker's own; header, separator and roles where
        they have tokens. before: who knows what others have computed; prompt is the rest of the prompt. Feeds
        nothing. Raises Busy if open already; on any error nothing is kept."""
        if self._cache is not None:
            raise Busy(f"this {self.name} layout is in use by another run: pass each run its own")
        self._cache, self._before = cache, before
        try:
            self.shared = self._block("shared", anchored=True)
            self._fed(self.shared, prompt)
            self.header = [self._static("header", header)] if header else []
            self.separator = [self._static("separator", separator)] if separator else []
            self.roles = {i: self._fed(self.block_behind(f"role {i}"), role) for i, role in enumerate(roles) if role}
            self.own = [self._block(f"worker {i}") for i in range(n_workers)]
            self.retired: set[int] = set()
            self._opened()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Frees every block, but those of texts that later runs may use. May be called at any time, and twice: after an
        error or Ctrl+C, the rest is freed."""
        while self.prefills:
            self._leave_to_others(*self.prefills[-1])
            self.prefills.pop()
        free_all(self.blocks, free_block)
        self.behind = []
        self._cache = self._before = None

    @property
    def history(self) -> list[Block]:
        """What all views begin with: the blocks of the prompt, in the last of which, shared, finished steps follow."""
        return [*(self._before.blocks if self._before else ()), self.shared]

    def prefill_view(self, block: Block) -> list[Block]:
        """How a block of .prefills, or one of block_behind(), is fed: alone, or behind the history."""
        if block is self.shared:
            return self.history
        return [*self.history, block] if block in self.behind else [block]

    def part_from_prompt(self) -> Block | None:
        """The prompt was fed, or a part of it. Takes the block that holds it out of the layout: others will use it. Its
        last token stays (of a model with recurrent layers it may be more), and the history goes on behind that. None:
        there is no more than that."""
        prompt = self.shared
        at = prompt.last_cut(len(prompt) - 1) if len(prompt) else 0
        if not at:
            return None
        self.shared = prompt.split(at, prompt.name)
        prompt.name = "prompt"
        self.blocks.append(self.shared)
        self.blocks.remove(prompt)
        return prompt

    @abstractmethod
    def view(self, worker: int) -> list[Block]:
        """The blocks that worker sees, its own last, but for its role. Changes nothing."""

    def seen_by(self, worker: int) -> list[Block]:
        """view(), with the role of the worker behind the history."""
        view = self.view(worker)
        if worker not in self.roles:
            return view
        at = view.index(self.shared) + 1
        return [*view[:at], self.roles[worker], *view[at:]]

    def block_behind(self, name: str) -> Block:
        """A new block that is to be fed behind the history: of what is said, or of a role."""
        self.behind.append(block := self._block(name))
        return block

    def forget(self, block: Block) -> None:
        """Frees such a block."""
        free_block(block)
        self.blocks.remove(block)
        self.behind.remove(block)

    def say(self, said: Block) -> None:
        """What the user said, and was fed behind the history, joins it. Costs at most moving its cells."""
        self.shared.append(said)
        self.forget(said)

    def join(self, role: Block | None = None) -> int:
        """One more worker: its number. role: what its view alone has."""
        worker = len(self.own)
        self.own.append(self._block(f"worker {worker}"))
        if role is not None:
            self.roles[worker] = role
        return worker

    @abstractmethod
    def end_step(self, worker: int) -> None:
        """worker's step ended: its tokens become a finished step. What is fed next begins a new one. Steps
        that end in one pass are ended in worker order. Costs at most moving the step's cells."""

    @abstractmethod
    def drop_step(self, worker: int) -> None:
        """Forgets worker's unfinished step and gives its cells back. One that cannot be cut off stays: of models with
        sliding windows, where what its beginning saw was dropped."""

    def cut_step(self, worker: int, n: int) -> list[int]:
        """Forgets the last n tokens of worker's unfinished step. Returns the tokens before them that had to go too, and
        are to be fed again: blocks of models with recurrent layers cannot be cut anywhere."""
        own = self.own[worker]
        end = len(own) - n
        at = own.last_cut(end)
        again = own.tokens[at:end] if at < end else []
        own.truncate(at)
        return again

    @abstractmethod
    def closing_view(self, own: Block) -> list[Block]:
        """What the finisher sees when all workers are retired: everything, and own, its block, last."""

    def retire(self, worker: int) -> None:
        """worker writes no more; what it wrote stays visible. Others' views may lose a block that became
        empty."""
        self.end_step(worker)
        self.retired.add(worker)
        if worker in self.roles:
            self.forget(self.roles.pop(worker))

    def check(self) -> None:
        """Raises HogwildError, naming the fault, unless all views obey the rules of a decode and the cells
        add up."""
        assert self._cache is not None
        known = {id(block) for block in [*self.history, *self.blocks]}
        for worker in range(len(self.own)):
            view = self.seen_by(worker)
            seen = {id(block) for block in view}
            if not view or view[-1] is not self.own[worker]:
                raise HogwildError(f"layout {self.name}: the view of worker {worker} does not end with its own block")
            if not {id(block) for block in self.history} <= seen:
                raise HogwildError(f"layout {self.name}: the view of worker {worker} lacks blocks of the prompt")
            if len(seen) != len(view):
                raise HogwildError(f"layout {self.name}: a block is twice in the view of worker {worker}")
            if not seen <= known:
                raise HogwildError(f"layout {self.name}: worker {worker} sees a block that is not of this layout")
        used = sum(len(block) for block in self.blocks)
        if used > self._cache.n_ctx - self._cache.n_free:
            raise HogwildError(f"layout {self.name}: its blocks have {used} tokens, more than the cache holds")

    # -- for subclasses --

    def _opened(self) -> None:  # noqa: B027
        """Called at the end of open(): set up what else the layout keeps."""

    def _block(self, name: str, anchored: bool = False) -> Block:
        """A new empty block that close() frees."""
        assert self._cache is not None
        block = self._cache.block(name, anchored)
        self.blocks.append(block)
        return block

    def _static(self, name: str, tokens: Sequence[int]) -> Block:
        """A new block that gets these tokens before the first pass, if no earlier run has computed them."""
        assert self._cache is not None
        block = self._before.recall(self._cache, tokens, name) if self._before else None
        if block is None:
            block = self._block(name)
        else:
            self.blocks.append(block)
        return self._fed(block, tokens)

    def _fed(self, block: Block, tokens: Sequence[int]) -> Block:
        """This block, which is to get these tokens before the first pass."""
        self.prefills.append((block, list(tokens)))
        return block

    def _leave_to_others(self, block: Block, tokens: Sequence[int]) -> None:
        if self._before is None or block not in self.blocks or block in (self.shared, *self.behind):
            return
        with contextlib.suppress(HogwildError):  # the engine has ended, and whoever needs it will say so
            if self._before.keep(block, tokens):
                self.blocks.remove(block)

    def _others(self, worker: int) -> list[Block]:
        """The other workers' blocks, ascending, without the empty ones of retired workers."""
        return [block for i, block in enumerate(self.own) if i != worker and not (i in self.retired and not len(block))]


class Contiguous(Layout):
    """Each worker keeps all it wrote in one block of its own, and everyone sees every token of it. Nothing
    moves."""

    name = "contiguous"

    def _opened(self) -> None:
        self._step_start: defaultdict[int, int] = defaultdict(int)

    def view(self, worker: int) -> list[Block]:
        return [*self.history, *self._others(worker), *self.separator, self.own[worker]]

    def end_step(self, worker: int) -> None:
        self._step_start[worker] = len(self.own[worker])
        self.own[worker].mark()

    def drop_step(self, worker: int) -> None:
        own, start = self.own[worker], self._step_start[worker]
        if own.last_cut(start) == start:
            own.truncate(start)

    def closing_view(self, own: Block) -> list[Block]:
        return [*self.history, *(block for block in self.own if len(block)), own]


class Interleaved(Layout):
    """Finished steps of all workers form one history after the prompt; unfinished ones are private."""

    name = "interleaved"

    def view(self, worker: int) -> list[Block]:
        return [*self.history, self.own[worker]]

    def end_step(self, worker: int) -> None:
        if len(self.own[worker]):
            self.shared.append(self.own[worker])

    def drop_step(self, worker: int) -> None:
        self.own[worker].clear()

    def closing_view(self, own: Block) -> list[Block]:
        return [*self.history, own]


class Combined(Interleaved):
    """A history of finished steps, and every token of the unfinished ones too."""

    name = "combined"

    def view(self, worker: int) -> list[Block]:
        return [*self.history, *self.header, *self._others(worker), *self.separator, self.own[worker]]


LAYOUTS: dict[str, type[Layout]] = {cls.name: cls for cls in (Combined, Interleaved, Contiguous)}
"""The built-in layouts by name."""


def make_layout(layout: str | Layout | type[Layout]) -> Layout:
    """A layout from its name, class or the thing itself. Raises InvalidArgument, which lists the names."""
    if isinstance(layout, Layout):
        return layout
    if isinstance(layout, type) and issubclass(layout, Layout):
        return layout()
    if isinstance(layout, str) and layout in LAYOUTS:
        return LAYOUTS[layout]()
    raise InvalidArgument(f"layout must be one of {', '.join(LAYOUTS)} or a Layout, not {layout!r}")
