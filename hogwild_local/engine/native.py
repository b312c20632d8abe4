"""The only module that touches the compiled library: handles, calls, and statuses turned into exceptions.

llama_cpp is imported first: it loads libllama, and our library must use that very copy.
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import errors
from . import forks, log
from .build import REBUILD, check_sizes, load_llama_cpp
from .handle import Handle
from .views import Decoded, DecodeView

_llama_cpp = load_llama_cpp()
try:
    from ._hogwild import ffi, lib
except ImportError as error:
    raise ImportError(f"the compiled part of hogwild-local cannot be loaded ({error}). {REBUILD}") from error


def _check_build() -> None:
    sizes = {
        "llama_model_params": lib.hw_sizeof_model_params(),
        "llama_context_params": lib.hw_sizeof_context_params(),
        "ggml_tensor": lib.hw_sizeof_tensor(),
    }
    check_sizes(_llama_cpp, sizes)


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

_ERROR_SIZE = 1024
_stopped = threading.local()
""".by: what a callback raised in the call that this thread is in."""


def _call(function: Callable[..., int], *args: Any) -> None:
    """Calls a function of the library that returns a status. Raises the exception of the status, or what a callback
    raised meanwhile: it must not pass through C."""
    text = ffi.new("char[]", _ERROR_SIZE)
    _stopped.by = None
    status = function(*args, text, _ERROR_SIZE)
    if _stopped.by is not None:
        raise _stopped.by from None
    if status == lib.HW_OK:
        return
    message = ffi.string(text).decode("utf-8", errors="replace")
    if status == lib.HW_ERROR_CACHE_FULL:
        needed, free = map(int, re.findall(r"\d+", message)[:2])
        raise errors.CacheFull(needed, free, message)
    raise ERROR_OF_STATUS[status](message)


def _new(kind: str, free: Any, function: Callable[..., int], *args: Any) -> Any:
    """The object that a function of the library makes. It is freed with its pointer, wherever Ctrl+C comes."""
    out = ffi.new(f"{kind} **")
    try:
        _call(function, *args, out)
    except BaseException:
        if out[0]:
            free(out[0])
        raise
    return ffi.gc(out[0], free)


def _text(function: Callable[..., int], *args: Any) -> str | None:
    """Calls a function that fills a buffer and returns the length, and gives it as much room as it needs."""

    def fill(buffer: Any, room: int) -> int:
        size = int(function(*args, buffer, room))
        return size if size < 0 else size + 1  # with the NUL behind it

    buffer, n = _fill("char[]", 256, fill)
    return None if n < 0 else bytes(ffi.buffer(buffer, n - 1)).decode("utf-8", errors="replace")


def _fill(kind: str, room: int, fill: Callable[[Any, int], int]) -> tuple[Any, int]:
    """An array that fill(array, room) has filled, and what it returned: how many there are, negative for an error."""
    while True:
        array = ffi.new(kind, room)
        n = fill(array, room)
        if n <= room:
            return array, n
        room = n


class _Object(Handle):
    """What calls on a pointer have in common."""

    def _ask(self, function: Callable[..., Any], *args: Any) -> Any:
        """What a function of the library returns that cannot fail."""
        with self._lock:
            return function(self._use(), *args)

    def _do(self, function: Callable[..., int], *args: Any) -> None:
        with self._lock:
            _call(function, self._use(), *args)

    def _int(self, function: Callable[..., int], *args: Any) -> int:
        """The int32 that a function of the library writes to its last argument."""
        out = ffi.new("int32_t *")
        self._do(function, *args, out)
        return int(out[0])


# -- devices, memory -----------------------------------------------------------------------------------------


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


def free_host_memory(root: str = "") -> int:
    """Bytes of host memory that this process can still have. root: where /proc and /sys are looked for."""
    return int(lib.hw_free_host_memory(ffi.new("char[]", root.encode())))


# -- model -----------------------------------------------------------------------------------------------------


def _keep(kind: type[BaseException], exception: BaseException, trace: Any) -> None:
    _stopped.by = exception


@ffi.def_extern(error=False, onerror=_keep)  # type: ignore[untyped-decorator]
def hogwild_on_progress(progress: float, user_data: Any) -> bool:
    callback = ffi.from_handle(user_data)
    return callback is None or callback(progress) is not False


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


class NativeModel(_Object):
    _what = "model"

    def __init__(self, settings: dict[str, Any], progress: Callable[[float], object] | None = None) -> None:
        """settings: the fields of struct hw_model_params, as numbers, bytes and lists."""
        if not settings["vocab_only"]:
            forks.will_compute()
        user_data = ffi.new_handle(progress)
        alive: list[Any] = []  # cffi frees what Python forgets

        def texts(paths: Sequence[bytes]) -> list[Any]:
            alive.extend(ffi.new("char[]", path) for path in paths)
            return alive[len(alive) - len(paths) :]

        fields = dict(settings)
        for name, kind in [("loras", "struct hw_lora[]"), ("control_vectors", "struct hw_control_vector[]")]:
            rows = settings[name]
            paths = texts([path for path, *_ in rows])
            fields[name] = ffi.new(kind, [(path, *rest) for path, (_, *rest) in zip(paths, rows, strict=True)])
        fields["path"] = ffi.new("char[]", settings["path"])
        fields["rpc_servers"] = ffi.new("char *[]", texts(settings["rpc_servers"]))
        fields["tensor_split"] = ffi.new("float[]", settings["tensor_split"])
        for name in ("loras", "control_vectors", "rpc_servers", "tensor_split"):
            fields[f"n_{name}"] = len(settings[name])
        fields["split_mode"] = SPLITS[settings["split_mode"]]
        fields["progress"], fields["user_data"] = lib.hogwild_on_progress, user_data
        params = ffi.new("struct hw_model_params *", fields)
        super().__init__(_new("hw_model", lib.hw_model_free, lib.hw_model_load, params), ffi.release)

    def cache(self, n_ctx: int, n_batch: int, type_k: bytes, type_v: bytes, attention: str) -> NativeCache:
        return NativeCache(self, n_ctx, n_batch, type_k, type_v, attention)

    def sampler(self, settings: dict[str, Any], logit_bias: dict[int, float], grammar: bytes | None) -> NativeSampler:
        return NativeSampler(self, settings, logit_bias, grammar)

    def number(self, name: str) -> int:
        return int(self._ask(getattr(lib, f"hw_model_{name}")))

    def text(self, name: str) -> str | None:
        with self._lock:
            return _text(getattr(lib, f"hw_model_{name}"), self._use())

    def placement(self) -> list[PlacementRow]:
        with self._lock:
            return _placement(lib.hw_model_placement, self._use())

    def address(self) -> int:
        """The address of the llama_model."""
        return int(ffi.cast("uintptr_t", self._ask(lib.hw_model_llama)))

    def metadata(self) -> dict[str, str]:
        with self._lock:
            model = self._use()
            return {
                _text(lib.hw_model_metadata_key, model, i) or "": _text(lib.hw_model_metadata_value, model, i) or ""
                for i in range(lib.hw_model_n_metadata(model))
            }

    def special(self, kind: str) -> int | None:
        token = int(self._ask(lib.hw_token_special, getattr(lib, f"HW_TOKEN_{kind}")))
        return None if token < 0 else token

    def is_end(self, token: int) -> bool:
        return bool(self._ask(lib.hw_token_is_end, token))

    def is_control(self, token: int) -> bool:
        return bool(self._ask(lib.hw_token_is_control, token))

    def tokenize(self, text: bytes, add_special: bool, parse_special: bool) -> list[int]:
        def fill(tokens: Any, room: int) -> int:
            return int(lib.hw_tokenize(self._use(), text, len(text), add_special, parse_special, tokens, room))

        with self._lock:
            tokens, n = _fill("int32_t[]", len(text) + 8, fill)
        if n < 0:
            raise errors.InvalidArgument(
                "the text cannot be tokenized: it is longer than 1 GiB or no UTF-8, or there is no vocabulary"
            )
        return list(tokens[0:n])

    def token_bytes(self, token: int, special: bool) -> bytes:
        def fill(text: Any, room: int) -> int:
            return int(lib.hw_token_bytes(self._use(), token, special, text, room))

        with self._lock:
            buffer, n = _fill("char[]", 64, fill)
        if n < 0:
            raise errors.InvalidArgument(f"token {token} is out of range")
        return bytes(ffi.buffer(buffer, n))

    def detokenize(self, tokens: Sequence[int], special: bool) -> bytes:
        array = ffi.new("int32_t[]", tokens)

        def fill(text: Any, room: int) -> int:
            return int(lib.hw_detokenize(self._use(), array, len(tokens), special, text, room))

        with self._lock:
            buffer, n = _fill("char[]", 8 * len(tokens) + 64, fill)
        if n < 0:
            raise errors.InvalidArgument("a token to detokenize is out of range")
        return bytes(ffi.buffer(buffer, n))


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


class NativeCache(_Object):
    _what = "cache"

    def __init__(
        self, model: NativeModel, n_ctx: int, n_batch: int, type_k: bytes, type_v: bytes, attention: str
    ) -> None:
        c_type_k, c_type_v = ffi.new("char[]", type_k), ffi.new("char[]", type_v)
        params = ffi.new("struct hw_cache_params *", [n_ctx, n_batch, c_type_k, c_type_v, ATTENTIONS[attention]])
        with model._lock:
            pointer = _new("hw_cache", lib.hw_cache_free, lib.hw_cache_new, model._use(), params)
        super().__init__(pointer, ffi.release)
        self._n_vocab = model.number("n_vocab")

    def number(self, name: str) -> int:
        return int(self._ask(getattr(lib, f"hw_cache_{name}")))

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
        self._do(lib.hw_cache_check)

    def new_block(self) -> int:
        return self._int(lib.hw_block_new)

    def free_blocks(self, blocks: Sequence[int]) -> None:
        """Those that were freed already are none any more: it may be called again after an interrupt."""
        for block in blocks:
            with contextlib.suppress(errors.InvalidArgument):
                self._do(lib.hw_block_free, block)

    def truncate(self, block: int, n: int) -> None:
        self._do(lib.hw_block_truncate, block, n)

    def append(self, dst: int, src: int) -> None:
        self._do(lib.hw_block_append, dst, src)

    def split(self, block: int, n: int) -> int:
        return self._int(lib.hw_block_split, block, n)

    def copy(self, block: int) -> int:
        return self._int(lib.hw_block_copy, block)

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
        return self._int(lib.hw_block_write, ffi.from_buffer(data), len(data))

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


class NativeSampler(_Object):
    _what = "sampler"

    def __init__(
        self, model: NativeModel, settings: dict[str, Any], logit_bias: dict[int, float], grammar: bytes | None
    ) -> None:
        fields = settings | {
            "n_bias": len(logit_bias),
            "bias_tokens": ffi.new("int32_t[]", list(logit_bias)),
            "bias_values": ffi.new("float[]", list(logit_bias.values())),
            "grammar": ffi.NULL if grammar is None else ffi.new("char[]", grammar),
        }
        params = ffi.new("struct hw_sampler_params *", fields)
        with model._lock:
            pointer = _new("hw_sampler", lib.hw_sampler_free, lib.hw_sampler_new, model._use(), params)
        super().__init__(pointer, ffi.release)

    def sample(self, logits: Any) -> int:
        """logits: float32 [n_vocab], as bytes or an array."""
        return self._int(lib.hw_sampler_sample, ffi.from_buffer("float[]", logits))

    def reset(self) -> None:
        self._ask(lib.hw_sampler_reset)


# -- log -------------------------------------------------------------------------------------------------------


def _tell(kind: type[BaseException], exception: BaseException, trace: Any) -> None:
    """A hook that fails spoils no call; Ctrl+C inside it is the caller's."""
    if isinstance(exception, Exception):
        sys.excepthook(kind, exception, trace)
    else:
        _stopped.by = exception


@ffi.def_extern(onerror=_tell)  # type: ignore[untyped-decorator]
def hogwild_on_log(level: int, text: Any, user_data: Any) -> None:
    log.tell(level, ffi.string(text).decode("utf-8", errors="replace"))


log.connect(lambda wanted: lib.hw_log_set(lib.hogwild_on_log if wanted else ffi.NULL, ffi.NULL))


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
    "pass_size",
    "rpc_load",
    "rpc_server",
]
