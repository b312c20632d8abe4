"""llama.cpp's own parallel decoding, the baseline of `hogwild bench`: sequences over a shared prefix in one unified
KV cache with flash attention, on the very weights that our model has loaded."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Any, Self

import llama_cpp
import numpy as np
import numpy.typing as npt

from ..engine.model import Model
from ..errors import ComputeError, InvalidArgument, OutOfMemory
from ..options import EngineOptions

GGML_TYPES = {
    "f32": 0,
    "f16": 1,
    "bf16": 30,
    "q8_0": 8,
    "q5_0": 6,
    "q5_1": 7,
    "q4_0": 2,
    "q4_1": 3,
}  # numbers of ggml.h


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _silence(level: int, text: bytes, user_data: Any) -> None:
    """llama.cpp prints every step of making a context unless it is told not to."""


class LlamaBaseline:
    """A llama_context of n_seqs sequences. lora: paths and scales; control: directions [layers - 1, width], from
    layer 1 on. swa_full: layers with a sliding window hold all tokens. Raises OutOfMemory, ComputeError,
    InvalidArgument (a model of vocab_only, a cache type, an adapter)."""

    def __init__(
        self,
        model: Model,
        n_ctx: int,
        n_seqs: int,
        type_k: str = EngineOptions.type_k,
        type_v: str = EngineOptions.type_v,
        n_batch: int = EngineOptions.n_batch,
        flash_attention: bool = True,
        swa_full: bool = True,
        lora: Sequence[tuple[str | os.PathLike[str], float]] = (),
        control: npt.NDArray[np.float32] | None = None,
    ) -> None:
        if model.vocab_only:  # llama.cpp makes a context of it, whose first decode ends the process
            raise InvalidArgument("the model was loaded with vocab_only: load it without, to have weights to run")
        if type_k not in GGML_TYPES or type_v not in GGML_TYPES:
            raise InvalidArgument(f"the baseline knows the cache types {', '.join(GGML_TYPES)}")
        self._model = model  # keeps the weights alive
        self._n_batch = n_batch
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch = params.n_ubatch = n_batch
        address = ctypes.c_void_p(model.llama_address)
        is_recurrent = llama_cpp.llama_model_is_recurrent(address) or llama_cpp.llama_model_is_hybrid(address)
        # Recurrent layers cannot go back: one more sequence keeps what a prompt has made of their states.
        self._kept = n_seqs if is_recurrent else None
        params.n_seq_max = n_seqs + int(is_recurrent)
        params.n_threads = params.n_threads_batch = model.n_threads
        # With flash attention llama.cpp rounds keys and values to f16, also those of an f32 cache.
        params.flash_attn_type = (
            llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash_attention else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        params.kv_unified = True
        params.swa_full = swa_full
        params.type_k, params.type_v = GGML_TYPES[type_k], GGML_TYPES[type_v]
        params.no_perf = True
        llama_cpp.llama_log_set(_silence, ctypes.c_void_p(0))
        self._context: Any = llama_cpp.llama_init_from_model(address, params)
        if not self._context:
            raise OutOfMemory(f"llama.cpp made no context of {n_ctx} cells")
        self._adapters: list[Any] = []
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(n_batch, 0, 1)
        try:
            self._apply(lora, control)
        except BaseException:
            self.close()
            raise

    def _apply(
        self, lora: Sequence[tuple[str | os.PathLike[str], float]], control: npt.NDArray[np.float32] | None
    ) -> None:
        address = ctypes.c_void_p(self._model.llama_address)
        for path, _ in lora:
            adapter = llama_cpp.llama_adapter_lora_init(address, os.fsencode(path))
            if not adapter:
                raise InvalidArgument(f"llama.cpp cannot load the adapter {path}")
            self._adapters.append(adapter)
        if lora:
            adapters = (llama_cpp.llama_adapter_lora_p_ctypes * len(lora))(*self._adapters)
            scales = (ctypes.c_float * len(lora))(*(scale for _, scale in lora))
            llama_cpp.llama_set_adapters_lora(self._context, adapters, len(lora), scales)
        if control is not None:
            data = np.ascontiguousarray(control, np.float32)
            pointer = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            n_layers, width = data.shape
            if llama_cpp.llama_set_adapter_cvec(self._context, pointer, data.size, width, 1, n_layers) != 0:
                raise InvalidArgument("llama.cpp does not take this control vector")

    def prefill(self, tokens: Sequence[int]) -> None:
        """Feeds a prompt to sequence 0, in chunks of n_batch, from an empty cache."""
        self.clear()
        for done in range(0, len(tokens), self._n_batch):
            self.feed(tokens[done : done + self._n_batch], done)
        self.keep_prompt()

    def keep_prompt(self) -> None:
        """What has been fed to sequence 0 is the prompt."""
        if self._kept is not None:
            llama_cpp.llama_memory_seq_cp(self._memory, 0, self._kept, -1, -1)

    def clear(self) -> None:
        """Forgets everything."""
        llama_cpp.llama_memory_clear(self._memory, True)

    def feed(self, chunk: Sequence[int], position: int) -> None:
        """Feeds at most n_batch tokens to sequence 0, from the position on, with logits after the last one."""
        last = len(chunk) - 1
        self._decode([(0, position + i, token, i == last) for i, token in enumerate(chunk)])

    def share(self, n_prefix: int, n_seqs: int) -> None:
        """Makes sequence 0's first n_prefix tokens, those of the last prefill, the prefix of n_seqs sequences, and
        drops all the rest."""
        source = 0 if self._kept is None else self._kept
        llama_cpp.llama_memory_seq_rm(self._memory, source, n_prefix, -1)
        for seq in range(0 if source else 1, n_seqs):
            llama_cpp.llama_memory_seq_rm(self._memory, seq, -1, -1)
            llama_cpp.llama_memory_seq_cp(self._memory, source, seq, 0, n_prefix)

    def step(self, position: int, tokens: Sequence[int]) -> None:
        """One pass: each sequence gets its token at the position, with logits."""
        self._decode([(seq, position, token, True) for seq, token in enumerate(tokens)])

    def _decode(self, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (seq, position, token, wants_logits) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = seq
            batch.logits[i] = wants_logits
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            raise ComputeError(f"llama_decode returned {status}")
        llama_cpp.llama_synchronize(self._context)

    def logits(self, row: int) -> Any:
        """Logits of a row of the last call: a C array of n_vocab floats, valid until the next one."""
        return llama_cpp.llama_get_logits_ith(self._context, row)

    def close(self) -> None:
        if self._context is not None:
            llama_cpp.llama_batch_free(self._batch)
            llama_cpp.llama_free(self._context)
            for adapter in self._adapters:
                llama_cpp.llama_adapter_lora_free(adapter)
            self._context = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
