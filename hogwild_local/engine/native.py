"""The only module that touches the compiled library: handles, calls, and statuses turned into exceptions.

llama_cpp is imported first: it loads libllama, and our library must use that very copy.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import re
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp._ggml import libggml

from .. import errors

try:
    from ._hogwild import ffi, lib
except ImportError as error:
    raise ImportError(
        f"the compiled part of hogwild-local cannot be loaded ({error}). "
        "Run: python -m pip install --force-reinstall --no-deps --no-cache-dir hogwild-local"
    ) from error

REINSTALL = "Run: python -m pip install --force-reinstall llama-cpp-python=={wanted} hogwild-local"


def _sizeof_tensor() -> int:
    """Of the loaded ggml, which tells the size with that of the header (ggml_object) before each."""
    overhead = libggml.ggml_tensor_overhead
    overhead.argtypes, overhead.restype = [], ctypes.c_size_t
    return int(overhead()) - 32


def _check_build() -> None:
    """llama.cpp's sonames guard nothing: the version and some struct sizes must be those we were compiled for."""
    wanted = next(
        requirement.split("==")[1].split(";")[0].strip()
        for requirement in importlib.metadata.requires("hogwild-local") or []
        if requirement.startswith("llama-cpp-python==")
    )
    how = REINSTALL.format(wanted=wanted)
    if llama_cpp.__version__ != wanted:
        raise ImportError(
            f"hogwild-local needs llama-cpp-python {wanted}, but {llama_cpp.__version__} is installed. {how}"
        )
    for name, ours, theirs in [
        ("llama_model_params", lib.hw_sizeof_model_params(), ctypes.sizeof(llama_cpp.llama_model_params)),
        ("llama_context_params", lib.hw_sizeof_context_params(), ctypes.sizeof(llama_cpp.llama_context_params)),
        ("ggml_tensor", lib.hw_sizeof_tensor(), _sizeof_tensor()),
    ]:
        if ours != theirs:
            raise ImportError(
                f"hogwild-local was compiled against another build of llama.cpp: {name} has {ours} bytes here "
                f"and {theirs} in llama-cpp-python {llama_cpp.__version__}. {how}"
            )


_check_build()

# One class for every status of the C header but HW_OK and HW_ERROR_CACHE_FULL, which carries numbers.
ERROR_OF_STATUS: dict[int, type[errors.HogwildError]] = {
    lib.HW_ERROR_ARGUMENT: errors.InvalidArgument,
    lib.HW_ERROR_MODEL: errors.ModelError,
    lib.HW_ERROR_UNSUPPORTED: errors.UnsupportedModel,
    lib.HW_ERROR_BATCH: errors.BatchTooLarge,
    lib.HW_ERROR_MEMORY: errors.OutOfMemory,
    lib.HW_ERROR_CANCELLED: errors.Cancelled,
    lib.HW_ERROR_COMPUTE: errors.ComputeError,
    lib.HW_ERROR_DEVICE: errors.DeviceError,
    lib.HW_ERROR_BUSY: errors.Busy,
}

ATTENTIONS = {
    "auto": lib.HW_ATTENTION_AUTO,
    "fused": lib.HW_ATTENTION_FUSED,
    "ggml": lib.HW_ATTENTION_GGML,
    "composed": lib.HW_ATTENTION_COMPOSED,
}
SPLITS = {"layer": lib.HW_SPLIT_LAYER, "none": lib.HW_SPLIT_NONE}
INT32_MAX = 2**31 - 1

_ERROR_SIZE = 1024


def _call(function: Callable[..., int], *args: Any) -> None:
    """Calls a function of the library that returns a status. Raises the exception of the status."""
    text = ffi.new("char[]", _ERROR_SIZE)
    status = function(*args, text, _ERROR_SIZE)
    if status == lib.HW_OK:
        return
    message = ffi.string(text).decode("utf-8", errors="replace")
    if status == lib.HW_ERROR_CACHE_FULL:
        needed, free = map(int, re.findall(r"\d+", message)[:2])
        raise errors.CacheFull(needed, free, message)
    raise ERROR_OF_STATUS[status](message)


def _text(function: Callable[..., int], *args: Any) -> str | None:
    """Calls a function that fills a buffer and returns the length, and gives it as much room as it needs."""
    size = function(*args, ffi.NULL, 0)
    if size < 0:
        return None
    buffer = ffi.new("char[]", size + 1)
    function(*args, buffer, size + 1)
    return bytes(ffi.buffer(buffer, size)).decode("utf-8", errors="replace")


def _free(lock: threading.RLock, free: Callable[[Any], None], pointer: Any) -> None:
    """At interpreter exit a daemon thread may be inside a call: wait for its end."""
    with lock:
        free(pointer)


class Handle:
    """An object of the library. Its calls wait for each other; close() waits for a call that is going on.

    Freed by close(), when collected, or at interpreter exit, whichever comes first; inside a log hook, when the call
    that the hook runs in has ended.
    """

    _what = "object"

    def __init__(self, pointer: Any, free: Callable[[Any], None]) -> None:
        self._pointer = pointer
        self._lock = threading.RLock()
        self._finalizer = weakref.finalize(self, _free, self._lock, free, pointer)

    @property
    def closed(self) -> bool:
        return not self._finalizer.alive

    def close(self) -> None:
        with self._lock:
            self._finalizer()

    def _use(self) -> Any:
        """The pointer. To be called with the lock held. Raises Closed, Busy."""
        if _hook_of_thread.is_running:  # what has no status could not say so
            raise errors.Busy(f"a log hook must not use the {self._what}: it runs in the middle of a call")
        if self.closed:
            raise errors.Closed(f"this {self._what} was closed")
        return self._pointer


def free_host_memory(root: str = "") -> int:
    """Bytes of host memory that this process can still have. root: where /proc and /sys are looked for."""
    return int(lib.hw_free_host_memory(ffi.new("char[]", root.encode())))


# -- devices ---------------------------------------------------------------------------------------------------


def rpc_load(path: bytes | None) -> None:
    """Sees to it that ggml has its RPC backend; path: a shared library that has it. Raises DeviceError."""
    _call(lib.hw_rpc_load, ffi.NULL if path is None else ffi.new("char[]", path))


def rpc_server(endpoint: bytes, devices: Sequence[bytes], n_threads: int) -> None:
    """Runs ggml's server; returns only by raising InvalidArgument or DeviceError."""
    c_endpoint = ffi.new("char[]", endpoint)
    c_devices = [ffi.new("char[]", device) for device in devices]
    c_list = ffi.new("char *[]", c_devices)
    params = ffi.new("struct hw_rpc_server_params *", [c_endpoint, c_list, len(c_devices), n_threads])
    _call(lib.hw_rpc_server, params)


def devices() -> list[tuple[str, str]]:
    """Name and description of all that this process can compute on."""
    lines = (_text(lib.hw_devices) or "").splitlines()
    return [(name, description) for name, _, description in (line.partition("\t") for line in lines)]


# -- model -----------------------------------------------------------------------------------------------------


@ffi.def_extern(error=False)  # type: ignore[untyped-decorator]
def hogwild_on_progress(progress: float, user_data: Any) -> bool:
    state: _Loading = ffi.from_handle(user_data)
    return state.report(progress)


class _Loading:
    """A load that goes on. An exception of the callback stops it and is raised afterwards, not inside C."""

    def __init__(self, callback: Callable[[float], object] | None) -> None:
        self.callback = callback
        self.exception: BaseException | None = None

    def report(self, progress: float) -> bool:
        if self.callback is None:
            return True
        try:
            return self.callback(progress) is not False
        except BaseException as exception:
            self.exception = exception
            return False


# (device, description, layer or -1, bytes, whether our CPU kernel attends to it)
PlacementRow = tuple[str, str, int, int, bool]


def _placement(function: Callable[..., int], pointer: Any) -> list[PlacementRow]:
    n = function(pointer, ffi.NULL, 0)
    rows = ffi.new("struct hw_placement[]", n)
    function(pointer, rows, n)
    return [
        (
            ffi.string(row.device).decode("utf-8", errors="replace"),
            ffi.string(row.description).decode("utf-8", errors="replace"),
            int(row.layer),
            int(row.n_bytes),
            bool(row.is_fused),
        )
        for row in rows
    ]


class NativeModel(Handle):
    _what = "model"

    def __init__(
        self,
        path: bytes,
        n_gpu_layers: int,
        n_threads: int,
        use_mmap: bool,
        vocab_only: bool,
        progress: Callable[[float], object] | None,
        loras: Sequence[tuple[bytes, float]] = (),
        control_vectors: Sequence[tuple[bytes, float, int, int]] = (),
        rpc_servers: Sequence[bytes] = (),
        tensor_split: Sequence[float] = (),
        split_mode: str = "layer",
        main_gpu: int = 0,
    ) -> None:
        state = _Loading(progress)
        user_data = ffi.new_handle(state)
        c_path = ffi.new("char[]", path)
        rows = [(ffi.new("char[]", adapter_path), *rest) for adapter_path, *rest in [*loras, *control_vectors]]
        c_loras = ffi.new("struct hw_lora[]", rows[: len(loras)])
        c_control_vectors = ffi.new("struct hw_control_vector[]", rows[len(loras) :])
        c_servers = [ffi.new("char[]", server) for server in rpc_servers]
        c_server_list = ffi.new("char *[]", c_servers)
        c_split = ffi.new("float[]", list(tensor_split))
        params = ffi.new(
            "struct hw_model_params *",
            {
                "path": c_path,
                "n_gpu_layers": n_gpu_layers,
                "n_threads": n_threads,
                "use_mmap": use_mmap,
                "vocab_only": vocab_only,
                "progress": lib.hogwild_on_progress,
                "user_data": user_data,
                "loras": c_loras,
                "n_loras": len(loras),
                "control_vectors": c_control_vectors,
                "n_control_vectors": len(control_vectors),
                "rpc_servers": c_server_list,
                "n_rpc_servers": len(c_servers),
                "tensor_split": c_split,
                "n_tensor_split": len(c_split),
                "split_mode": SPLITS[split_mode],
                "main_gpu": main_gpu,
            },
        )
        out = ffi.new("hw_model **")
        try:
            _call(lib.hw_model_load, params, out)
        except errors.Cancelled:
            if state.exception is not None:
                raise state.exception from None
            raise
        super().__init__(out[0], lib.hw_model_free)

    def cache(self, n_ctx: int, n_batch: int, type_k: bytes, type_v: bytes, attention: str) -> NativeCache:
        return NativeCache(self, n_ctx, n_batch, type_k, type_v, attention)

    def sampler(self, settings: dict[str, Any], logit_bias: dict[int, float], grammar: bytes | None) -> NativeSampler:
        return NativeSampler(self, settings, logit_bias, grammar)

    def number(self, name: str) -> int:
        with self._lock:
            return int(getattr(lib, f"hw_model_{name}")(self._use()))

    def text(self, name: str) -> str | None:
        with self._lock:
            return _text(getattr(lib, f"hw_model_{name}"), self._use())

    def placement(self) -> list[PlacementRow]:
        with self._lock:
            return _placement(lib.hw_model_placement, self._use())

    def address(self) -> int:
        """The address of the llama_model."""
        with self._lock:
            return int(ffi.cast("uintptr_t", lib.hw_model_llama(self._use())))

    def metadata(self) -> dict[str, str]:
        with self._lock:
            model = self._use()
            return {
                _text(lib.hw_model_metadata_key, model, i) or "": _text(lib.hw_model_metadata_value, model, i) or ""
                for i in range(lib.hw_model_n_metadata(model))
            }

    def special(self, kind: str) -> int | None:
        with self._lock:
            token: int = lib.hw_token_special(self._use(), getattr(lib, f"HW_TOKEN_{kind}"))
        return None if token < 0 else token

    def is_end(self, token: int) -> bool:
        with self._lock:
            return bool(lib.hw_token_is_end(self._use(), token))

    def is_control(self, token: int) -> bool:
        with self._lock:
            return bool(lib.hw_token_is_control(self._use(), token))

    def tokenize(self, text: bytes, add_special: bool, parse_special: bool) -> list[int]:
        room = len(text) + 8
        with self._lock:
            while True:
                tokens = ffi.new("int32_t[]", room)
                n = lib.hw_tokenize(self._use(), text, len(text), add_special, parse_special, tokens, room)
                if n < 0:
                    raise errors.InvalidArgument(
                        "the text cannot be tokenized: it is longer than 1 GiB or no UTF-8, or there is no vocabulary"
                    )
                if n <= room:
                    return list(tokens[0:n])
                room = n

    def token_bytes(self, token: int, special: bool) -> bytes:
        buffer = ffi.new("char[]", 64)
        with self._lock:
            n = lib.hw_token_bytes(self._use(), token, special, buffer, 64)
            if n > 64:
                buffer = ffi.new("char[]", n)
                lib.hw_token_bytes(self._use(), token, special, buffer, n)
        if n < 0:
            raise errors.InvalidArgument(f"token {token} is out of range")
        return bytes(ffi.buffer(buffer, n))

    def detokenize(self, tokens: Sequence[int], special: bool) -> bytes:
        array = ffi.new("int32_t[]", tokens)
        room = 8 * len(tokens) + 64
        with self._lock:
            while True:
                buffer = ffi.new("char[]", room)
                n = lib.hw_detokenize(self._use(), array, len(tokens), special, buffer, room)
                if n < 0:
                    raise errors.InvalidArgument("a token to detokenize is out of range")
                if n <= room:
                    return bytes(ffi.buffer(buffer, n))
                room = n


# -- cache -----------------------------------------------------------------------------------------------------


def float_rows(n_rows: int, n_vocab: int) -> npt.NDArray[np.float32]:
    """Room for logits, not filled. Raises OutOfMemory, also where the system would hand out more than there is."""
    try:
        n_bytes = 4 * n_rows * n_vocab
        if n_bytes < 2**26 or n_bytes <= free_host_memory():  # to ask costs a tenth of a millisecond
            return np.empty((n_rows, n_vocab), dtype=np.float32)
    except MemoryError:
        pass
    raise errors.OutOfMemory(f"no memory for {n_rows} rows of logits, {n_vocab} numbers each: ask for fewer tokens")


class DecodeView(NamedTuple):
    """What a view feeds, and what it wants of the pass: struct hw_view."""

    blocks: Sequence[int]
    tokens: Sequence[int]
    n_outputs: int = 1
    wants_logits: bool = False
    targets: Sequence[int] | None = None
    sampler: NativeSampler | None = None


class Decoded(NamedTuple):
    """What a view got: float32 [n_outputs, n_vocab]; float32 [n_outputs]; the token, -1 where the sampler could choose
    none. None: not asked for."""

    logits: npt.NDArray[np.float32] | None
    logprobs: npt.NDArray[np.float32] | None
    sampled: int | None


class _CView:
    """A view as a struct hw_view, without its sampler, and the arrays that it points to."""

    def __init__(self, view: DecodeView, n_vocab: int) -> None:
        if view.targets is not None and len(view.targets) != view.n_outputs:
            raise errors.InvalidArgument(f"{len(view.targets)} targets for {view.n_outputs} outputs of a view")
        n_rows = max(view.n_outputs, 0)
        self._logits = float_rows(n_rows, n_vocab) if view.wants_logits else None
        self._logprobs = None if view.targets is None else np.empty(n_rows, dtype=np.float32)
        self._sampled = ffi.NULL if view.sampler is None else ffi.new("int32_t *")
        self.fields = {
            "blocks": ffi.new("int32_t[]", view.blocks),
            "n_blocks": len(view.blocks),
            "tokens": ffi.new("int32_t[]", view.tokens),
            "n_tokens": len(view.tokens),
            "n_outputs": view.n_outputs,
            "logits": ffi.NULL if self._logits is None else ffi.from_buffer("float[]", self._logits),
            "targets": ffi.NULL if view.targets is None else ffi.new("int32_t[]", view.targets),
            "logprobs": ffi.NULL if self._logprobs is None else ffi.from_buffer("float[]", self._logprobs),
            "sampled": self._sampled,
        }

    def result(self) -> Decoded:
        return Decoded(self._logits, self._logprobs, int(self._sampled[0]) if self._sampled else None)


# A matrix that a token is multiplied with: ggml type, is repacked, is routed, bytes, values
WeightShare = tuple[int, bool, bool, float, float]


class NativeCache(Handle):
    _what = "cache"

    def __init__(
        self, model: NativeModel, n_ctx: int, n_batch: int, type_k: bytes, type_v: bytes, attention: str
    ) -> None:
        c_type_k = ffi.new("char[]", type_k)
        c_type_v = ffi.new("char[]", type_v)
        params = ffi.new("struct hw_cache_params *", [n_ctx, n_batch, c_type_k, c_type_v, ATTENTIONS[attention]])
        out = ffi.new("hw_cache **")
        with model._lock:
            _call(lib.hw_cache_new, model._use(), params, out)
        super().__init__(out[0], lib.hw_cache_free)
        self._n_vocab = model.number("n_vocab")

    def number(self, name: str) -> int:
        with self._lock:
            return int(getattr(lib, f"hw_cache_{name}")(self._use()))

    def placement(self) -> list[PlacementRow]:
        with self._lock:
            return _placement(lib.hw_cache_placement, self._use())

    def weights(self) -> list[WeightShare]:
        with self._lock:
            n = lib.hw_cache_weights(self._use(), ffi.NULL, 0)
            rows = ffi.new("struct hw_weight_share[]", n)
            lib.hw_cache_weights(self._use(), rows, n)
        return [(row.type, row.is_repacked, row.is_routed, row.n_bytes, row.n_values) for row in rows]

    def cell_size(self) -> tuple[float, float]:
        """Bytes and values of one token's keys and values, all layers."""
        with self._lock:
            size = lib.hw_cache_cell_size(self._use())
        return float(size.n_bytes), float(size.n_values)

    def pass_size(self, n: int) -> int:
        rows = ffi.new("int32_t *")
        with self._lock:
            _call(lib.hw_cache_pass_size, self._use(), n, rows)
        return int(rows[0])

    def check(self) -> None:
        with self._lock:
            _call(lib.hw_cache_check, self._use())

    def new_block(self) -> int:
        return self._made(lib.hw_block_new)

    def len(self, block: int) -> int:
        length = ffi.new("int32_t *")
        with self._lock:
            _call(lib.hw_block_len, self._use(), block, length)
        return int(length[0])

    def free_block(self, block: int) -> None:
        with self._lock:
            _call(lib.hw_block_free, self._use(), block)

    def truncate(self, block: int, n: int) -> None:
        with self._lock:
            _call(lib.hw_block_truncate, self._use(), block, n)

    def append(self, dst: int, src: int) -> None:
        with self._lock:
            _call(lib.hw_block_append, self._use(), dst, src)

    def _made(self, function: Callable[..., int], *args: Any) -> int:
        """The id of the block that a function makes."""
        block = ffi.new("int32_t *")
        with self._lock:
            _call(function, self._use(), *args, block)
        return int(block[0])

    def split(self, block: int, n: int) -> int:
        return self._made(lib.hw_block_split, block, n)

    def copy(self, block: int) -> int:
        return self._made(lib.hw_block_copy, block)

    def tokens(self, block: int) -> list[int]:
        n = ffi.new("int32_t *")
        with self._lock:
            _call(lib.hw_block_tokens, self._use(), block, ffi.NULL, 0, n)
            tokens = ffi.new("int32_t[]", int(n[0]))
            _call(lib.hw_block_tokens, self._use(), block, tokens, len(tokens), n)
        return list(tokens)

    def read(self, block: int) -> bytearray:
        size = ffi.new("size_t *")
        with self._lock:
            _call(lib.hw_block_state_size, self._use(), block, size)
            data = bytearray(size[0])
            _call(lib.hw_block_read, self._use(), block, ffi.from_buffer(data), len(data))
        return data

    def write(self, data: bytes | bytearray) -> int:
        return self._made(lib.hw_block_write, ffi.from_buffer(data), len(data))

    def blocks(self) -> dict[int, int]:
        """Length by id, of all blocks."""
        with self._lock:
            n = lib.hw_cache_blocks(self._use(), ffi.NULL, ffi.NULL, 0)
            ids, lens = ffi.new("int32_t[]", n), ffi.new("int32_t[]", n)
            lib.hw_cache_blocks(self._use(), ids, lens, n)
        return dict(zip(ids, lens, strict=True))

    def decode(self, views: Sequence[DecodeView]) -> list[Decoded]:
        """One forward pass of all views. Raises the errors of hw_decode, and Closed where a sampler was closed."""
        c_views = [_CView(view, self._n_vocab) for view in views]
        array = ffi.new("struct hw_view[]", [c_view.fields for c_view in c_views])
        samplers = {view.sampler for view in views if view.sampler is not None}
        with contextlib.ExitStack() as locks:
            # In one order everywhere, so that no two calls wait for each other.
            for sampler in sorted(samplers, key=id):
                locks.enter_context(sampler._lock)
            for row, view in zip(array, views, strict=True):
                row.sampler = ffi.NULL if view.sampler is None else view.sampler._use()
            locks.enter_context(self._lock)
            _call(lib.hw_decode, self._use(), array, len(views))
        return [c_view.result() for c_view in c_views]


def pass_size(weights: Sequence[WeightShare], has_avx512: bool, n: int) -> int:
    """The rule behind NativeCache.pass_size for given weights. For tests."""
    shares = ffi.new("struct hw_weight_share[]", list(weights))
    rows = ffi.new("int32_t *")
    _call(lib.hw_pass_size, shares, len(weights), has_avx512, n, rows)
    return int(rows[0])


# -- sampler ---------------------------------------------------------------------------------------------------


class NativeSampler(Handle):
    _what = "sampler"

    def __init__(
        self, model: NativeModel, settings: dict[str, Any], logit_bias: dict[int, float], grammar: bytes | None
    ) -> None:
        bias_tokens = ffi.new("int32_t[]", list(logit_bias))
        bias_values = ffi.new("float[]", list(logit_bias.values()))
        c_grammar = ffi.NULL if grammar is None else ffi.new("char[]", grammar)
        params = ffi.new(
            "struct hw_sampler_params *",
            settings
            | {
                "n_bias": len(logit_bias),
                "bias_tokens": bias_tokens,
                "bias_values": bias_values,
                "grammar": c_grammar,
            },
        )
        out = ffi.new("hw_sampler **")
        with model._lock:
            _call(lib.hw_sampler_new, model._use(), params, out)
        super().__init__(out[0], lib.hw_sampler_free)
        self._n_vocab = model.number("n_vocab")
        self._token = ffi.new("int32_t *")

    def sample(self, logits: npt.NDArray[np.float32]) -> int:
        if not isinstance(logits, np.ndarray):
            raise errors.InvalidArgument(f"logits must be a numpy array, not {type(logits).__name__}")
        if logits.dtype != np.float32 or logits.shape != (self._n_vocab,) or not logits.flags.c_contiguous:
            raise errors.InvalidArgument(
                f"logits must be float32 [{self._n_vocab}], contiguous, not {logits.dtype} {list(logits.shape)} "
                f"with strides {list(logits.strides)}"
            )
        with self._lock:
            _call(lib.hw_sampler_sample, self._use(), ffi.from_buffer("float[]", logits), self._token)
            return int(self._token[0])

    def reset(self) -> None:
        with self._lock:
            lib.hw_sampler_reset(self._use())


# -- log -------------------------------------------------------------------------------------------------------

_log_hook: Callable[[int, str], object] | None = None


class _HookOfThread(threading.local):
    is_running = False


_hook_of_thread = _HookOfThread()


@ffi.def_extern()  # type: ignore[untyped-decorator]
def hogwild_on_log(level: int, text: Any, user_data: Any) -> None:
    if _log_hook is None:
        return
    _hook_of_thread.is_running = True
    try:
        _log_hook(level, ffi.string(text).decode("utf-8", errors="replace"))
    finally:
        _hook_of_thread.is_running = False


def set_log_hook(hook: Callable[[int, str], object] | None) -> None:
    """Sends llama.cpp's log lines of our calls to hook(level, text); None: quiet.

    The hook runs in the middle of a call: what it asks of this library raises Busy, and what it closes is freed when
    that call has ended.
    """
    global _log_hook
    _log_hook = hook
    lib.hw_log_set(ffi.NULL if hook is None else lib.hogwild_on_log, ffi.NULL)


def log_hook() -> Callable[[int, str], object] | None:
    """What set_log_hook was given."""
    return _log_hook


# -- the attention kernel alone, for tests and benchmarks ------------------------------------------------------


def attention_isas() -> list[str]:
    """The instruction sets of the fused kernel that this CPU can run, best first."""
    return str(ffi.string(lib.hw_attention_isas()).decode()).replace(",", " ").split()


def attention(args: Any, isa: str, n_threads: int) -> int:
    """hw_attention on a struct hw_attention_args * (see cpp/include/hogwild-attention.h). Returns its status."""
    return int(lib.hw_attention(args, isa.encode(), n_threads))


__all__ = [
    "DecodeView",
    "Decoded",
    "NativeCache",
    "NativeModel",
    "NativeSampler",
    "attention",
    "attention_isas",
    "devices",
    "ffi",
    "float_rows",
    "free_host_memory",
    "log_hook",
    "pass_size",
    "rpc_load",
    "rpc_server",
    "set_log_hook",
]
