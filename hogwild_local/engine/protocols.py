"""What the run loop needs of the layer below, as protocols.

The loop, the layouts and the command line take their engine as a parameter, so they import and run without
the compiled extension; tests pass a fake one through the same door. native_engine() is the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from ..options import SamplingParams
from .devices import Device
from .views import Sampled

Logits = npt.NDArray[np.float32]
View = tuple[Sequence[Any], Sequence[int]]  # blocks, and the tokens to feed to the last one


class ModelLike(Protocol):
    """A loaded model: tokenizer and metadata (see hogwild_local.Model)."""

    @property
    def n_vocab(self) -> int: ...
    @property
    def chat_template(self) -> str | None: ...
    @property
    def description(self) -> str: ...
    @property
    def n_ctx_train(self) -> int: ...
    @property
    def metadata(self) -> Mapping[str, str]: ...
    @property
    def bos(self) -> int | None: ...
    @property
    def eos(self) -> int | None: ...
    @property
    def devices(self) -> Sequence[Device]: ...
    def tokenize(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]: ...
    def token_bytes(self, token: int) -> bytes: ...
    def token_text(self, token: int) -> str: ...
    def is_eog(self, token: int) -> bool: ...
    def close(self) -> None: ...


class BlockLike(Protocol):
    """A run of tokens inside a cache (see hogwild_local.CacheBlock)."""

    def __len__(self) -> int: ...
    @property
    def name(self) -> str: ...
    def append(self, other: Self) -> None: ...
    def split(self, n: int, name: str = "") -> Self: ...
    def clear(self) -> None: ...
    def truncate(self, n: int) -> None: ...
    def free(self) -> None: ...


class CacheLike(Protocol):
    """A shared KV cache (see hogwild_local.SharedCache). next_tokens() is decode() and sampling in one call; the
    samplers are those of the same engine, or None; sampled() says how likely the tokens were too. They may be called
    from several threads."""

    @property
    def n_ctx(self) -> int: ...
    @property
    def n_batch(self) -> int: ...
    @property
    def n_free(self) -> int: ...
    @property
    def devices(self) -> Sequence[Device]: ...
    def block(self, name: str) -> Any: ...
    def copy(self, block: Any, name: str) -> Any: ...
    def decode(self, views: Sequence[View]) -> Logits: ...
    def next_tokens(self, views: Sequence[View], samplers: Sequence[Any]) -> list[int | None]: ...
    def sampled(self, views: Sequence[View], samplers: Sequence[Any], n_top: int | None) -> list[Sampled | None]: ...
    def close(self) -> None: ...


class SamplerLike(Protocol):
    """The sampler of one worker (see hogwild_local.Sampler)."""

    def sample(self, logits: Any) -> int: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Engine:
    """The three factories a run is made from, and the path of the model to use when none is named."""

    model: Callable[..., ModelLike]
    cache: Callable[..., CacheLike]
    sampler: Callable[[Any, SamplingParams], SamplerLike]
    default_model: Callable[[], Path]


def native_engine() -> Engine:
    """The compiled engine. The library itself is loaded with the first model: its ImportError says what to install."""
    from .cache import SharedCache
    from .default_model import default_model_path
    from .model import Model
    from .sampling import Sampler

    return Engine(Model, SharedCache, Sampler, default_model_path)
