"""Recurrences in float64, token by token, and the same by our kernel on any blocks and views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hogwild_local.engine import native

Token = list[np.ndarray]
"""What one token gives to a recurrence: the rows of its inputs."""


@dataclass(frozen=True)
class Kind:
    """A recurrence by its sizes. step() takes a state on by one token and says what is read then."""

    n_head: int
    d_k: int
    d_v: int = 1
    n_decay: int = 0
    n_groups: int = 1
    n_rows: int = -1
    scale: float = 1.0
    slope: float = 0.0

    number = -1
    weight = -1  # which of the inputs is one of all tokens

    def shapes(self) -> list[tuple[int, ...]]:
        raise NotImplementedError

    def draw(self, rng: np.random.Generator) -> Token:
        return [rng.normal(size=shape) for shape in self.shapes()]

    def draw_weight(self, rng: np.random.Generator) -> np.ndarray:
        return np.zeros(0)

    def start(self) -> np.ndarray:
        raise NotImplementedError

    def step(self, state: np.ndarray, token: Token, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError


class Convolution(Kind):
    number, weight = 0, 1

    def shapes(self) -> list[tuple[int, ...]]:
        return [(self.n_head,)]

    def draw_weight(self, rng: np.random.Generator) -> np.ndarray:
        return rng.normal(size=(self.n_head, self.d_k + 1))

    def start(self) -> np.ndarray:
        return np.zeros((self.d_k, self.n_head))

    def step(self, state: np.ndarray, token: Token, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen = np.concatenate([state, token[0][None]])
        return seen[1:], (seen * weight.T).sum(0)


class Diagonal(Kind):
    """Mamba-2, and with a decay for each row of a state Mamba-1."""

    number, weight = 1, 2

    def shapes(self) -> list[tuple[int, ...]]:
        return [(self.n_head, self.d_v), (self.n_head,), (self.n_groups, self.d_k), (self.n_groups, self.d_k)]

    def draw_weight(self, rng: np.random.Generator) -> np.ndarray:
        return -rng.uniform(0.01, 1.5, size=(self.n_head, self.n_decay))

    def start(self) -> np.ndarray:
        return np.zeros((self.n_head, self.d_v, self.d_k))

    def step(self, state: np.ndarray, token: Token, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, dt, b, c = token
        dt = np.log1p(np.exp(dt))[:, None, None]
        b, c = (np.repeat(rows, self.n_head // self.n_groups, axis=0)[:, None] for rows in (b, c))
        state = state * np.exp(dt * weight[:, None]) + dt * x[:, :, None] * b
        return state, (state * c).sum(-1)


class Delta(Kind):
    """Gated delta nets, and with a decay for each row of a state Kimi's."""

    number = 2

    def shapes(self) -> list[tuple[int, ...]]:
        of_keys = (self.n_groups, self.d_k)
        return [of_keys, of_keys, (self.n_head, self.d_v), (self.n_head, self.n_decay), (self.n_head, 1)]

    def draw(self, rng: np.random.Generator) -> Token:
        q, k, v, g, beta = super().draw(rng)
        return [q, k / np.linalg.norm(k, axis=-1, keepdims=True), v, -np.abs(g) / 4, 1 / (1 + np.exp(-beta))]

    def start(self) -> np.ndarray:
        return np.zeros((self.n_head, self.d_k, self.d_v))

    def step(self, state: np.ndarray, token: Token, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        q, k, v, g, beta = token
        q, k = (np.tile(rows, (self.n_head // self.n_groups, 1)) for rows in (q, k))
        state = state * np.exp(g)[:, :, None]
        change = beta * (v - np.einsum("hkv,hk->hv", state, k))
        state = state + k[:, :, None] * change[:, None]
        return state, np.einsum("hkv,hk->hv", state, q) / np.sqrt(self.d_v)


class Forgetful(Delta):
    """Kimi's, with rows that some tokens decay to nothing, as far as floats go."""

    def draw(self, rng: np.random.Generator) -> Token:
        q, k, v, g, beta = super().draw(rng)
        return [q, k, v, g * np.where(rng.random(g.shape) < 0.1, 400, 1), beta]


class Linear(Kind):
    """S <- diag(w) S + k v; what is read of the new one."""

    number = 3

    def shapes(self) -> list[tuple[int, ...]]:
        return [(self.n_head, self.d_k), (self.n_head, self.d_k), (self.n_head, self.d_v)]

    def start(self) -> np.ndarray:
        return np.zeros((self.n_head, self.d_k, self.d_v))

    def step(self, state: np.ndarray, token: Token, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        q, k, v = token[:3]
        state = state * self.decays(token) + k[:, :, None] * v[:, None]
        return state, self.scale * np.einsum("hkv,hk->hv", state, q)

    def decays(self, token: Token) -> np.ndarray:
        raise NotImplementedError


class Lightning(Linear):
    """MiniMax's: each head has a decay of its own."""

    def decays(self, token: Token) -> np.ndarray:
        slopes = 2.0 ** (-8.0 * np.arange(1, self.n_head + 1) / self.n_head)
        return np.exp(-self.slope * slopes)[:, None, None]


class Gated(Linear):
    """Gated linear attention: each row decays as the token says."""

    def shapes(self) -> list[tuple[int, ...]]:
        return [*super().shapes(), (self.n_head, self.d_k)]

    def draw(self, rng: np.random.Generator) -> Token:
        *rows, decays = super().draw(rng)
        return [*rows, np.exp(-np.exp(decays - 1))]

    def decays(self, token: Token) -> np.ndarray:
        return token[3][:, :, None]


class Wkv6(Gated):
    """RWKV-6: a token reads the state as it was, and of itself what a bonus says."""

    weight = 4

    def draw_weight(self, rng: np.random.Generator) -> np.ndarray:
        return rng.normal(size=(self.n_head, self.d_k))

    def step(self, state: np.ndarray, token: Token, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r, k, v, w = token
        own = k[:, :, None] * v[:, None]
        read = np.einsum("hkv,hk->hv", state + weight[:, :, None] * own, r)
        return state * w[:, :, None] + own, read


class Wkv7(Kind):
    """RWKV-7. As its models do, a takes out what b puts back in part."""

    number = 4

    def shapes(self) -> list[tuple[int, ...]]:
        of_keys = (self.n_head, self.d_k)
        return [of_keys, of_keys, of_keys, (self.n_head, self.d_v), of_keys, of_keys]

    def draw(self, rng: np.random.Generator) -> Token:
        r, w, k, v, a, b = super().draw(rng)
        a /= np.linalg.norm(a, axis=-1, keepdims=True)
        return [r, np.exp(-0.606531 / (1 + np.exp(-w))), k, v, -a, a / (1 + np.exp(-b))]

    def start(self) -> np.ndarray:
        return np.zeros((self.n_head, self.d_k, self.d_v))

    def step(self, state: np.ndarray, token: Token, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r, w, k, v, a, b = token
        taken = np.einsum("hkv,hk->hv", state, a)
        state = state * w[:, :, None] + b[:, :, None] * taken[:, None] + k[:, :, None] * v[:, None]
        return state, np.einsum("hkv,hk->hv", state, r)


class Shift(Convolution):
    """RWKV's token shift: the input before."""

    weight = -1

    def draw_weight(self, rng: np.random.Generator) -> np.ndarray:
        return np.zeros(0)

    def step(self, state: np.ndarray, token: Token, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return token[0][None], state[0]


KINDS = {
    "convolution": Convolution(5, 3),
    "convolution, rows": Convolution(5, 3, n_rows=9),
    "mamba-2": Diagonal(4, 18, 3, n_decay=1, n_groups=2),
    "mamba-2, rows": Diagonal(4, 35, 3, n_decay=1, n_groups=2, n_rows=20),
    "mamba-1": Diagonal(6, 4, 1, n_decay=4),
    "mamba-1, rows": Diagonal(6, 4, 1, n_decay=4, n_rows=16),
    "delta net": Delta(4, 18, 5, n_decay=1, n_groups=2),
    "delta net, no rows": Delta(2, 18, 5, n_decay=1, n_rows=0),
    "delta net, wide": Delta(2, 70, 67, n_decay=1, n_rows=40),
    "kimi": Delta(3, 6, 6, n_decay=6, n_groups=3, n_rows=15),
    "kimi, wide": Delta(2, 35, 35, n_decay=35, n_groups=2, n_rows=40),
    "kimi, forgetful": Forgetful(2, 18, 18, n_decay=18, n_groups=2, n_rows=40),
    "token shift": Shift(5, 1),
    "token shift, rows": Shift(5, 1, n_rows=9),
    "lightning": Lightning(4, 18, 5, n_decay=1, n_rows=0, slope=0.7),
    "lightning, rows": Lightning(4, 18, 5, n_decay=1, n_rows=12, slope=0.7),
    "gated": Gated(3, 10, 6, n_decay=10, scale=0.3, n_rows=9),
    "rwkv-6": Wkv6(3, 18, 18, n_decay=18, n_rows=0),
    "rwkv-6, rows": Wkv6(3, 35, 35, n_decay=35, n_rows=20),
    "rwkv-7": Wkv7(3, 18, 18, n_decay=18, n_rows=0),
    "rwkv-7, rows": Wkv7(3, 35, 35, n_decay=35, n_rows=20),
    "rwkv-7, as models are": Wkv7(2, 64, 64, n_decay=64),
}
"""Each with few tokens as rows, and without."""


@dataclass
class Pair:
    """Blocks by number in our library, and as what their tokens were."""

    kind: Kind
    rng: np.random.Generator
    blocks: dict[int, list[Token]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kind = self.kind
        self.weight = kind.draw_weight(self.rng).astype(np.float32).astype(np.float64)
        sizes = (kind.n_head, kind.d_k, kind.d_v, kind.n_decay, kind.n_rows, kind.scale, kind.slope)
        self.ours = native.Recurrence(kind.number, *sizes)

    def feed(self, views: Sequence[tuple[list[int], int]], n_threads: int = 1, fails: bool = False) -> float:
        """A pass. Returns the largest difference, relative to what is read."""
        fed = [[self._token() for _ in range(n)] for _, n in views]
        out = np.full((sum(map(len, fed)), self.kind.n_head * self.kind.d_v), np.nan, np.float32)
        sizes = {"n_groups": self.kind.n_groups}
        inputs = [
            np.stack(rows).astype(np.float32) for rows in zip(*(token for of in fed for token in of), strict=True)
        ]
        if self.kind.weight >= 0:
            inputs.insert(self.kind.weight, self.weight.astype(np.float32))
        self.ours.run(views, inputs, out, n_threads=n_threads, fails=fails, **sizes)
        theirs = self._expected(views, fed)
        if not fails:
            for (blocks, _), tokens in zip(views, fed, strict=True):
                self.blocks[blocks[-1]] += tokens
        return float(np.abs(out - theirs).max() / (1 + np.abs(theirs).max()))

    def _token(self) -> Token:
        return [rows.astype(np.float32).astype(np.float64) for rows in self.kind.draw(self.rng)]

    def _expected(self, views: Sequence[tuple[list[int], int]], fed: list[list[Token]]) -> np.ndarray:
        """All blocks take the tokens of the pass; then each token sees the blocks of its view, and its own so far."""
        after = {block: list(tokens) for block, tokens in self.blocks.items()}
        for (blocks, _), tokens in zip(views, fed, strict=True):
            after[blocks[-1]] += tokens
        rows = []
        for (blocks, n), _ in zip(views, fed, strict=True):
            seen = [token for block in blocks for token in after[block]]
            state = self.kind.start()
            for i, token in enumerate(seen):
                state, read = self.kind.step(state, token, self.weight)
                if i >= len(seen) - n:
                    rows.append(read.reshape(-1))
        return np.stack(rows)
