"""A Model as it looks from outside of the process that holds it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Self

from ...checks import whole
from ...options import Servers
from ..checks import c_path
from ..devices import devices_of
from ..rpc import parse_servers
from . import wire
from .process import EngineProcess


class RemoteModel:
    """A Model in a process of its own, which ends with close(). Takes what Model takes; raises what Model raises, and
    EngineDied."""

    n_vocab: int
    n_ctx_train: int
    n_threads: int
    metadata: dict[str, str]
    description: str
    chat_template: str | None
    bos: int | None
    eos: int | None

    def __init__(
        self,
        path: str | os.PathLike[str],
        n_gpu_layers: int | None = None,
        n_threads: int | None = None,
        *,
        progress: Callable[[float], object] | None = None,
        rpc: Servers = (),
        trust: bool = False,  # its process is the trial
        **options: Any,
    ) -> None:
        file = c_path(path, "path")
        self.path = os.fsdecode(file)
        servers = parse_servers(rpc)
        options |= {"n_gpu_layers": n_gpu_layers, "n_threads": n_threads, "rpc": servers}
        self._process = EngineProcess(servers)
        try:
            arguments = {name: wire.plain(value) for name, value in options.items()}
            self._id, facts = self._process.call(
                "model", "load", file, arguments, progress is not None, progress=progress
            )
        except BaseException:
            self._process.close()
            raise
        self.devices = devices_of(facts.pop("placement"))
        for name, value in facts.items():
            setattr(self, name, value)
        self._tokens: dict[int, tuple[bytes, str, bool]] = {}

    def tokenize(self, text: str | bytes, add_special: bool = True, parse_special: bool = False) -> list[int]:
        tokens: list[int] = self._call("tokenize", text, add_special, parse_special)
        return tokens

    def detokenize(self, ids: Sequence[int], special: bool = False) -> str:
        return str(self._call("detokenize", [whole(i, "a token", 0, self.n_vocab - 1) for i in ids], special))

    def token_bytes(self, token: int) -> bytes:
        return self._token(token)[0]

    def token_text(self, token: int) -> str:
        return self._token(token)[1]

    def is_eog(self, token: int) -> bool:
        return self._token(token)[2]

    @property
    def pid(self) -> int:
        """Of the process that holds the model."""
        return self._process.pid

    @property
    def closed(self) -> bool:
        return self._process.closed

    def close(self) -> None:
        """Ends the process, and so all caches and samplers of this model. May be called twice."""
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _call(self, name: str, *arguments: Any) -> Any:
        return self._process.call("model", name, self._id, *arguments)

    def _token(self, token: int) -> tuple[bytes, str, bool]:
        """Asked for once: a vocabulary is small."""
        token = whole(token, "token", 0, self.n_vocab - 1)
        known = self._tokens.get(token)
        if known is None:
            known = self._tokens[token] = self._call("token", token)
        return known
