"""Logits as they look from outside of the process that computed them: they stay there until somebody looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .cache import RemoteCache
    from .process import EngineProcess


class RemoteLogits:
    """Those of a cache's last decode() only: logits[i], np.asarray(logits[i])."""

    def __init__(self, cache: RemoteCache, number: int, n_rows: int) -> None:
        self._cache, self._number, self._n_rows = cache, number, n_rows

    def __len__(self) -> int:
        return self._n_rows

    def __getitem__(self, row: int) -> RemoteRow:
        if not -self._n_rows <= row < self._n_rows:
            raise IndexError(row)
        return RemoteRow(self._cache, self._number, row % self._n_rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.stack([np.asarray(self[row], dtype=dtype) for row in range(self._n_rows)])


class RemoteRow:
    """The logits of one view."""

    def __init__(self, cache: RemoteCache, number: int, row: int) -> None:
        self.cache, self.number, self.row = cache, number, row

    @property
    def process(self) -> EngineProcess:
        return self.cache.process

    def argmax(self) -> int:
        return int(self.cache.call("argmax", self.number, self.row))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        data = self.cache.call("logits", self.number, self.row)
        return np.frombuffer(data, dtype=np.float32).astype(dtype or np.float32)
