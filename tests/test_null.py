"""Every function of the C API takes NULL for every object and buffer: an error, or the answer that stands for none. In
a process of its own, because what went wrong would be a crash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from isolated import run_isolated

# Calls each function that hogwild.h declares with 0 and NULL for all arguments; then, of those that take an object and
# more, with the object and 0 and NULL for the rest. Where there is a size beside a buffer, the size is 8 as well.
CODE = """
import sys
from hogwild_local import Model, Sampler, SharedCache
from hogwild_local.engine.native import ffi, lib
model = Model(sys.argv[1], n_threads=1)
cache, sampler = SharedCache(model, n_ctx=64), Sampler(model)
objects = {"hw_model *": model._native, "hw_cache *": cache._native, "hw_sampler *": sampler._native}
n = 0
def zero(kind, size):
    if kind.kind in ("pointer", "function"):
        return ffi.NULL
    return size if kind.cname in ("size_t", "int32_t") else 0

for name in dir(lib):
    kind = ffi.typeof(getattr(lib, name)) if callable(getattr(lib, name)) else None
    if kind is None or kind.kind != "function" or not name.startswith("hw_") or "log_set" in name:
        continue
    for size in (0, 8, -1):
        if size == -1 and any(kind.cname == "size_t" for kind in kind.args):
            continue
        result = getattr(lib, name)(*(zero(each, size) for each in kind.args))
        if kind.result.cname == "enum hw_status" and name != "hw_rpc_load":
            assert result == lib.HW_ERROR_ARGUMENT, (name, size, result)
        n += 1
        first = next((objects[each.cname] for each in kind.args if each.cname in objects), None)
        if first is not None and "_free" not in name.replace("n_free", "").replace("block_free", ""):
            rest = [zero(each, size) for each in kind.args[1:]]
            result = getattr(lib, name)(first._pointer, *rest)
            if kind.result.cname == "enum hw_status" and name not in ("hw_cache_check",):
                assert result == lib.HW_ERROR_ARGUMENT, (name, size, result)
            n += 1
print(n > 100, cache.n_free)
"""


def test_null_for_anything_is_an_error_and_no_crash(tiny_path: Callable[..., Path]) -> None:
    done = run_isolated(CODE, tiny_path("llama"))
    assert (done.returncode, done.stderr) == (0, ""), (done.returncode, done.stderr)
    assert done.stdout.split() == ["True", "64"]


def test_what_is_null_is_named(tiny_path: Callable[..., Path]) -> None:
    code = """
from hogwild_local.engine.native import ffi, lib
text = ffi.new("char[]", 256)
for name, arguments in [("hw_block_new", [ffi.NULL, False, ffi.new("int32_t *")]), ("hw_model_load", [ffi.NULL] * 2)]:
    status = getattr(lib, name)(*arguments, text, 256)
    print(status == lib.HW_ERROR_ARGUMENT, ffi.string(text).decode())
none = ffi.NULL
print(lib.hw_cache_n_free(none), lib.hw_cache_n_bytes(none), lib.hw_model_n_vocab(none), lib.hw_token_is_end(none, 1))
"""
    done = run_isolated(code)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["True cache is NULL", "True model is NULL", "-1 0 -1 False"]


def test_who_wants_none_of_the_likeliest_tokens_needs_no_room_for_them(tiny_path: Callable[..., Path]) -> None:
    code = """
import sys
from hogwild_local import Model, Sampler, SharedCache
from hogwild_local.engine.native import ffi, lib
with Model(sys.argv[1], n_threads=1) as model, SharedCache(model, n_ctx=64) as cache:
    block, sampler = cache.block(), Sampler(model)
    blocks, tokens, token, logprob = (ffi.new(kind, 1) for kind in ("int32_t[]", "int32_t[]", "int32_t[]", "float[]"))
    blocks[0] = block._use()
    view = ffi.new("struct hw_view *", {
        "blocks": blocks, "n_blocks": 1, "tokens": tokens, "n_tokens": 1, "n_outputs": 1,
        "sampler": sampler._native._pointer, "sampled": token, "sampled_logprob": logprob,
    })
    assert view.top_tokens == ffi.NULL
    text = ffi.new("char[]", 256)
    print(lib.hw_decode(cache._native._pointer, view, 1, text, 256) == lib.HW_OK, token[0] >= 0, logprob[0] < 0)
"""
    done = run_isolated(code, tiny_path("llama"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["True"] * 3


def test_what_is_no_value_of_an_enum_is_refused(tiny_path: Callable[..., Path]) -> None:
    code = """
import sys
from hogwild_local import Model
from hogwild_local.engine.native import ffi, lib
text, cache, f16 = ffi.new("char[]", 256), ffi.new("hw_cache **"), ffi.new("char[]", b"f16")
path, other = ffi.new("char[]", sys.argv[1].encode()), ffi.new("hw_model **")
maps, sizes = ffi.new("hw_recurrence **"), {"n_head": 1, "d_k": 1, "d_v": 1, "n_rows": -1}
assert lib.hw_recurrence_new(ffi.new("struct hw_recurrence_params *", sizes), maps, text, 256) == lib.HW_OK
with Model(sys.argv[1], n_threads=1) as model:
    for number in (-1, 8, 2**31 - 1):
        params = ffi.new("struct hw_cache_params *", [64, 8, f16, f16, ffi.cast("enum hw_attention", number), 1])
        assert lib.hw_cache_new(model._native._pointer, params, cache, text, 256) == lib.HW_ERROR_ARGUMENT
        print(ffi.string(text).decode())
        split = {"path": path, "n_threads": 1, "split_mode": ffi.cast("enum hw_split", number)}
        params = ffi.new("struct hw_model_params *", split)
        assert lib.hw_model_load(params, other, text, 256) == lib.HW_ERROR_ARGUMENT
        print(ffi.string(text).decode())
        change = ffi.cast("enum hw_recurrence_change", number)
        assert lib.hw_recurrence_change(maps[0], change, 0, 0, 0, text, 256) == lib.HW_ERROR_ARGUMENT
        print(ffi.string(text).decode())
        print(lib.hw_token_special(model._native._pointer, ffi.cast("enum hw_token_kind", number)))
lib.hw_recurrence_free(maps[0])
"""
    done = run_isolated(code, tiny_path("llama"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        line
        for number in (-1, 8, 2147483647)
        for line in (
            f"attention is {number}, no value of hw_attention",
            f"split_mode is {number}, no value of hw_split",
            f"change is {number}, no value of hw_recurrence_change",
            "-1",
        )
    ]
