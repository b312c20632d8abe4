"""Prompts that were computed, kept in the cache as a tree of blocks: a run computes only what no earlier one has.

    "You are helpful."  ─┬─ "What is 6*7?"          a path from the root is what a prompt begins with;
                         └─ "And 7*8?" ── "Why?"    a run stands on one

Where a new prompt leaves a path in the middle of a block, the block is split: no cell moves. Blocks of models with
recurrent layers can be split at some places only (CacheBlock.last_cut): there the prompt leaves earlier, and below a
node several may begin alike. What no run stands on goes when room is needed, the least recently used first.

Texts that are computed alone, as a layout's are, stand beside the tree. A run takes a copy: a block in common would
make runs that have nothing else in common one group of a pass.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .layouts import Block, free_block
from .steady import Steady

LEAST_DROPPED = 64  # cells: to cut a block waits for a pass
SPLIT_WAIT_S = 2.0
"""For the passes of others. Who waits longer shares whole blocks only."""


@dataclass(eq=False, slots=True)
class Node:
    """A block, whose tokens stand behind those of all nodes above it."""

    block: Block
    tokens: Sequence[int]
    parent: Node | None
    children: list[Node] = field(default_factory=list)
    used: int = 0
    """When it was used last, counted in runs."""

    @property
    def path(self) -> list[Node]:
        """From below the root to this node."""
        nodes: list[Node] = []
        node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    @property
    def end(self) -> int:
        """Tokens of its path."""
        return sum(len(node.tokens) for node in self.path)

    @property
    def is_whole(self) -> bool:
        """False: Ctrl+C came when it was cut."""
        return len(self.block) == len(self.tokens)


class Prefixes:
    """The tree of one cache. All methods may be called from any thread. lock: of what others count of it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.passes = Steady()
        """Kept while a pass is planned and made: then no block that a run stands on is split."""
        self.n_splits = 0
        """Paths that were read before it changed lack blocks."""
        self._root = Node(None, (), None)
        self._alone: dict[tuple[int, ...], Node] = {}
        """Roots, each with one text below it, or none any more."""
        self._clock = itertools.count(1)
        self._prefixes: weakref.WeakSet[Prefix] = weakref.WeakSet()
        self._held: set[Node] | None = None

    @property
    def n_cells(self) -> int:
        """Of all nodes."""
        with self.lock:
            return sum(len(node.tokens) for node in self._nodes())

    @property
    def n_held(self) -> int:
        """Of those that runs stand on."""
        with self.lock:
            return sum(len(node.tokens) for node in self._held_nodes())

    def found(self, tokens: Sequence[int]) -> tuple[int, int]:
        """How many tokens a run with this prompt would find in whole blocks, and how many of them other runs hold."""
        with self.lock:
            path, held = self._walk(self._root, tokens).path, self._held_nodes()
            return sum(len(node.tokens) for node in path), sum(len(node.tokens) for node in path if node in held)

    def hold(self, tokens: Sequence[int]) -> Prefix:
        """The longest path of whole blocks that a prompt begins with. It stays until it is released."""
        with self.lock:
            prefix = Prefix(self, self._root)
            self._prefixes.add(prefix)
            prefix.move(self._walk(self._root, tokens))
            return prefix

    def drop(self, n: int) -> None:
        """Frees n cells, or all that no run stands on. The least recently used go first, beginning at their ends."""
        with self.lock:
            held = self._held_nodes()
            while n > 0 and (leaves := [node for node in self._nodes() if not node.children and node not in held]):
                node = min(leaves, key=lambda leaf: leaf.used)
                kept = node.block.last_cut(max(0, len(node.tokens) - max(n, LEAST_DROPPED))) if node.is_whole else 0
                n -= len(node.tokens) - kept
                if kept:
                    node.block.truncate(kept)
                    node.tokens = node.tokens[:kept]
                else:
                    self._remove(node)

    def drop_all(self) -> None:
        """All that no run stands on."""
        self.drop(self.n_cells)

    def recall(self, tokens: Sequence[int]) -> Block | None:
        """The block of a text that was computed alone. It may be used while the lock is held."""
        with self.lock:
            root = self._alone.get(tuple(tokens))
            node = self._walk(root, tokens) if root else None
            if node is None or node.end != len(tokens):
                return None
            node.used = next(self._clock)
            return node.block

    def keep(self, block: Block, tokens: Sequence[int]) -> bool:
        """The block of a text that was computed alone is the tree's from now on. False: it has one, and this is the
        caller's."""
        with self.lock:
            if (known := self.recall(tokens)) is not None:
                return known is block  # Ctrl+C came before it was noted
            block.name = "prompt"
            self._alone = {text: root for text, root in self._alone.items() if root.children}
            root = self._alone[tuple(tokens)] = Node(None, (), None)
            root.children.append(Node(block, list(tokens), root, used=next(self._clock)))
            return True

    # -- for Prefix --

    def _walk(self, node: Node, tokens: Sequence[int]) -> Node:
        """As far below a node as whole blocks go. tokens: those of the whole prompt."""
        at = node.end
        ends = [
            self._walk(child, tokens)
            for child in node.children
            if child.is_whole and list(child.tokens) == list(tokens[at : at + len(child.tokens)])
        ]
        return max(ends, key=lambda end: end.end, default=node)

    def _into(self, node: Node, tokens: Sequence[int]) -> tuple[Node, int] | None:
        """The node below whose block a prompt begins with but leaves, and where it does, or could last be cut before.
        Of several the one that goes furthest."""
        rest = tokens[node.end :]
        best = (node, 0)
        for child in node.children:
            pairs = zip(child.tokens, rest, strict=False)
            n = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(child.tokens), len(rest)))
            if best[1] < n < len(child.tokens) and child.is_whole:
                best = max(best, (child, child.block.last_cut(n)), key=lambda found: found[1])
        return best if best[1] else None

    def _split(self, node: Node, n: int) -> Node:
        """Its first n tokens become a node above it, which is returned."""
        assert node.parent is not None
        above = node.parent
        head = Node(node.block, node.tokens[:n], above, [node], used=node.used)
        node.block = node.block.split(n, "prompt")
        node.tokens = node.tokens[n:]
        above.children[above.children.index(node)] = node.parent = head
        self.n_splits += 1
        self._held = None
        return head

    def _remove(self, node: Node) -> None:
        assert node.parent is not None
        node.parent.children.remove(node)
        free_block(node.block)

    def _nodes(self) -> Iterator[Node]:
        roots = [self._root, *self._alone.values()]
        waiting = [node for root in roots for node in root.children]
        while waiting:
            node = waiting.pop()
            waiting += node.children
            yield node

    def _held_nodes(self) -> set[Node]:
        if self._held is None:
            self._held = {node for prefix in self._prefixes for node in prefix.path}
        return self._held


class Prefix:
    """What one run stands on: the path that its prompt begins with. release() gives it back."""

    def __init__(self, tree: Prefixes, node: Node) -> None:
        """node: the root, on which nobody need stand."""
        self._tree, self._node, self._root = tree, node, node
        self._own: list[Block] = []

    @property
    def path(self) -> list[Node]:
        """The nodes that it stands on."""
        return self._node.path

    @property
    def blocks(self) -> list[Block]:
        """First to last; valid until tree.n_splits changes."""
        return [node.block for node in self.path] + self._own

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.blocks))

    def reach(self, tokens: Sequence[int]) -> None:
        """Goes on as far as tokens do, into the middle of a block too. Waits for the passes of others where they stand
        on it. Raises what a split raises: it stands where it stood then."""
        tree = self._tree
        with tree.lock:
            into = self._further(tokens)
            if into is None:
                return
            if into[0] not in tree._held_nodes():
                self.move(tree._split(*into))
                return
        # Passes take the lock too, so it is not held while passes are waited for.
        with tree.passes.changed(SPLIT_WAIT_S) as may_change, tree.lock:
            into = self._further(tokens)
            if into is not None and (may_change or into[0] not in tree._held_nodes()):
                self.move(tree._split(*into))

    def add(self, block: Block, tokens: Sequence[int]) -> bool:
        """The run has computed a block that stands behind this path; tokens: those of the path and of the block. It is
        the tree's from now on. False: another run began likewise in the meantime, and the block is this run's own."""
        tree = self._tree
        with tree.lock:
            node = tree._walk(self._node, tokens)
            if node.end == len(tokens):
                free_block(block)
                self.move(node)
                return True
            if tree._into(self._node, tokens) is not None:
                self._own.append(block)
                return False
            node = Node(block, list(tokens[self._node.end :]), self._node)
            self._node.children.append(node)
            self.move(node)
            return True

    def move(self, node: Node) -> None:
        """Stands on another node."""
        tree = self._tree
        with tree.lock:
            tree._held, self._node = None, node
            used = next(tree._clock)
            for above in node.path:
                above.used = used

    def release(self) -> None:
        """May be called twice."""
        while self._own:
            free_block(self._own[-1])
            self._own.pop()
        self.move(self._root)

    def _further(self, tokens: Sequence[int]) -> tuple[Node, int] | None:
        """Goes on over whole blocks, which others may have added, and says which block is to be split, and where."""
        self.move(self._tree._walk(self._node, tokens))
        return self._tree._into(self._node, tokens)
