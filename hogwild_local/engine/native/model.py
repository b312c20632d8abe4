"""A loaded model: its tokenizer, what it says of itself, and the caches and samplers that are made of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from ... import errors
from .. import forks
from ..devices import PlacementRow
from ..threads import default_threads
from .cache import NativeCache, cache_room
from .calls import Object, fill_array, keep_for_caller, new, text_of
from .host import placement
from .library import ffi, lib
from .sampler import NativeSampler

SPLITS = {"layer": lib.HW_SPLIT_LAYER, "none": lib.HW_SPLIT_NONE}


@ffi.def_extern(error=False, onerror=keep_for_caller)  # type: ignore[untyped-decorator]
def hogwild_on_progress(progress: float, user_data: Any) -> bool:
    callback = ffi.from_handle(user_data)
    return callback is None or callback(progress) is not False


class NativeModel(Object):
    _what = "model"

    def __init__(self, settings: dict[str, Any], progress: Callable[[float], object] | None = None) -> None:
        """settings: the fields of struct hw_model_params, as numbers, bytes and lists. n_threads None: as many as a
        pass of the model can use here."""
        if not settings["vocab_only"]:
            forks.will_compute()
        user_data = ffi.new_handle(progress)
        alive: list[Any] = []  # cffi frees what Python forgets

        def texts(paths: Sequence[bytes]) -> list[Any]:
            alive.extend(ffi.new("char[]", path) for path in paths)
            return alive[len(alive) - len(paths) :]

        fields = dict(settings)
        if fields["n_threads"] is None:
            fields["n_threads"] = default_threads(os.fsdecode(fields["path"]))
        for name, kind in [("loras", "struct hw_lora[]"), ("control_vectors", "struct hw_control_vector[]")]:
            rows = settings[name]
            paths = texts([path for path, *_ in rows])
            fields[name] = ffi.new(kind, [(path, *rest) for path, (_, *rest) in zip(paths, rows, strict=True)])
        fields["path"] = ffi.new("char[]", settings["path"])
        fields["rpc_servers"] = ffi.new("char *[]", texts(settings["rpc_servers"]))
        devices = settings["devices"]
        fields["devices"] = ffi.NULL if devices is None else ffi.new("char *[]", [*texts(devices), ffi.NULL])
        fields["n_devices"] = len(devices or ())
        fields["tensor_split"] = ffi.new("float[]", settings["tensor_split"])
        for name in ("loras", "control_vectors", "rpc_servers", "tensor_split"):
            fields[f"n_{name}"] = len(settings[name])
        fields["split_mode"] = SPLITS[settings["split_mode"]]
        fields["progress"], fields["user_data"] = lib.hogwild_on_progress, user_data
        params = ffi.new("struct hw_model_params *", fields)
        super().__init__(new("hw_model", lib.hw_model_free, lib.hw_model_load, params), ffi.release)

    def cache(self, *arguments: Any) -> NativeCache:
        """arguments: as NativeCache's from n_ctx on."""
        return NativeCache(self, self.number("n_vocab"), *arguments)

    def room(self, share: float, *arguments: Any) -> int:
        """The most tokens, up to n_ctx, that such a cache can hold in a share of the memory that is free."""
        return cache_room(self, share, *arguments)

    def sampler(
        self, settings: dict[str, Any], logit_bias: dict[int, float], grammar: bytes | None, triggers: Sequence[bytes]
    ) -> NativeSampler:
        return NativeSampler(self, settings, logit_bias, grammar, triggers)

    def number(self, name: str) -> int:
        return int(self._ask(getattr(lib, f"hw_model_{name}")))

    def text(self, name: str) -> str | None:
        with self._lock:
            return text_of(getattr(lib, f"hw_model_{name}"), self._use())

    def placement(self) -> list[PlacementRow]:
        with self._lock:
            return placement(lib.hw_model_placement, self._use())

    def address(self) -> int:
        """The address of the llama_model."""
        return int(ffi.cast("uintptr_t", self._ask(lib.hw_model_llama)))

    def metadata(self) -> dict[str, str]:
        with self._lock:
            model = self._use()
            return {
                text_of(lib.hw_model_metadata_key, model, i) or "": text_of(lib.hw_model_metadata_value, model, i) or ""
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
            tokens, n = fill_array("int32_t[]", len(text) + 8, fill)
        if n < 0:
            raise errors.InvalidArgument(
                "the text cannot be tokenized: it is longer than 1 GiB or no UTF-8, or there is no vocabulary"
            )
        return list(tokens[0:n])

    def token_bytes(self, token: int, special: bool) -> bytes:
        def fill(text: Any, room: int) -> int:
            return int(lib.hw_token_bytes(self._use(), token, special, text, room))

        with self._lock:
            buffer, n = fill_array("char[]", 64, fill)
        if n < 0:
            raise errors.InvalidArgument(f"token {token} is out of range")
        return bytes(ffi.buffer(buffer, n))

    def detokenize(self, tokens: Sequence[int], special: bool) -> bytes:
        array = ffi.new("int32_t[]", tokens)

        def fill(text: Any, room: int) -> int:
            return int(lib.hw_detokenize(self._use(), array, len(tokens), special, text, room))

        with self._lock:
            buffer, n = fill_array("char[]", 8 * len(tokens) + 64, fill)
        if n < 0:
            raise errors.InvalidArgument("a token to detokenize is out of range")
        return bytes(ffi.buffer(buffer, n))
