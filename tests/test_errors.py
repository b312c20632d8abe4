"""Bad input: typed errors that name the fault and change nothing. What could end the process runs in another."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from isolated import run_isolated

from hogwild_local import CacheBlock, Model, Sampler, SamplingParams, SharedCache, errors
from hogwild_local.engine.native import ERROR_OF_STATUS, lib
from hogwild_local.errors import Closed, HogwildError, InvalidArgument, OutOfMemory, UnsupportedModel

Load = Callable[..., Model]
HEADER = Path(__file__).parent.parent / "cpp" / "include" / "hogwild.h"
NOT_NUMBERS = [None, "x", 1.0, 2.5, [1], True, np.bool_(True)]

# -- the classes -----------------------------------------------------------------------------------------------


def test_every_status_of_the_header_has_a_class_of_its_own() -> None:
    names = set(re.findall(r"\b(HW_ERROR_[A-Z_]+) =", HEADER.read_text()))
    assert len(names) >= 8
    classes = {name: ERROR_OF_STATUS.get(getattr(lib, name)) for name in names}
    assert [name for name, cls in classes.items() if cls is None] == ["HW_ERROR_CACHE_FULL"]  # it carries numbers
    assert len(set(classes.values())) == len(names)


def test_every_error_is_a_documented_hogwild_error_and_in_the_tree() -> None:
    classes = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__]
    assert len(classes) >= 10
    for cls in classes:
        assert issubclass(cls, HogwildError)
        assert cls.__doc__
        assert cls.__name__ in errors.__doc__


def test_errors_are_builtin_ones_too_where_there_is_one() -> None:
    assert issubclass(errors.InvalidArgument, ValueError)
    assert issubclass(errors.OutOfMemory, MemoryError)
    assert issubclass(errors.BatchTooLarge, errors.InvalidArgument)
    assert issubclass(errors.UnsupportedModel, errors.ModelError)


# -- text and tokens -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [None, 5, "\ud800", ["a"], 1.5])
def test_what_is_no_text_is_refused(text: object, single: Load) -> None:
    with pytest.raises(InvalidArgument, match="text"):
        single("llama").tokenize(text)


@pytest.mark.parametrize("data", [b"", b"\0", b"a\0b", b"\xff\xfe\x80", b"\xf0\x9f", "\udcff", "e\u0301 \U0001f600"])
def test_any_bytes_can_be_tokenized(data: bytes | str, single: Load) -> None:
    model = single("llama")
    raw = data.encode(errors="surrogateescape") if isinstance(data, str) else data
    written = b"".join(map(model.token_bytes, model.tokenize(data, add_special=False)))
    # llama.cpp splits text by characters: bytes that are none become U+FFFD, how many of them is its affair.
    assert written == raw or "\ufffd" in raw.decode(errors="replace")


@pytest.mark.parametrize("token", [-1, 10**6, 2**31, 2**63, 2**100, *NOT_NUMBERS])
def test_a_token_that_the_model_lacks_is_refused(token: object, single: Load) -> None:
    model = single("llama")
    with SharedCache(model, n_ctx=32) as cache:
        block = cache.block()
        calls = [
            lambda: model.detokenize([1, token]),
            lambda: model.token_bytes(token),
            lambda: model.token_text(token),
            lambda: model.is_eog(token),
            lambda: cache.decode([([block], [1, token, 2])]),
            lambda: cache.decode([([block], [1] * 40 + [token])]),
        ]
        for call in calls:
            with pytest.raises(InvalidArgument, match="token"):
                call()
        assert len(block) == 0


def test_numpy_integers_are_tokens(single: Load) -> None:
    with SharedCache(single("llama"), n_ctx=32) as cache:
        a, b = cache.block(), cache.block()
        one = cache.decode([([a], np.array([1, 2, 3], dtype=np.uint16))])
        assert np.array_equal(one, cache.decode([([b], [1, 2, 3])]))


# -- caches ----------------------------------------------------------------------------------------------------

BAD_TYPES = [None, 1, "", "F16", "f16\0", "\ud800", "q9", "f" * 9999]


@pytest.mark.parametrize(
    "settings",
    [
        {name: value}
        for name in ("n_ctx", "n_batch")
        for value in (0, -1, 2**31, 2**64, *NOT_NUMBERS)
        if (name, value) != ("n_ctx", None)  # as many as there is room for
    ]
    + [{"attention": value} for value in ("", "flash", "FUSED", None, 0, [])]
    + [{name: value} for name in ("type_k", "type_v") for value in BAD_TYPES],
)  # fmt: skip
def test_cache_settings_are_checked_by_name(settings: dict[str, object], single: Load) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(settings))):
        SharedCache(single("llama"), **settings)


@pytest.mark.parametrize("model", [None, "model.gguf", 5])
def test_a_cache_and_a_sampler_need_a_model(model: object) -> None:
    with pytest.raises(InvalidArgument, match="model"):
        SharedCache(model)
    with pytest.raises(InvalidArgument, match="model"):
        Sampler(model)


def test_a_cache_larger_than_memory_is_refused_without_touching_it() -> None:
    code = """
import sys, tempfile, resource
from pathlib import Path
from hogwild_local import Model, SharedCache, errors
from models.transformer import Shape, write_transformer
from models.weights import seeded
path = Path(tempfile.mkdtemp()) / "m.gguf"
write_transformer(path, "a small model with large keys", Shape("qwen3", 2, 32, 8, 8, 256, 32), "f32", seeded(0))
model = Model(path, n_threads=1)
SharedCache(model, n_ctx=64).close()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for n_ctx in (2**24, 2**24 - 1, 2**23):  # 32 KiB a cell: 512 GiB, and 256
    try:
        SharedCache(model, n_ctx=n_ctx, type_k="f32", type_v="f32")
        print("made")
    except errors.OutOfMemory as error:
        print("n_ctx" in str(error))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000)
"""
    done = run_isolated(code)
    assert done.stdout.split() == ["True"] * 4, done.stderr
    assert (done.returncode, done.stderr) == (0, "")


USE_TYPE = """
import sys
import llama_cpp, ctypes, numpy as np
from hogwild_local import Model, SharedCache, errors
model = Model(sys.argv[1], n_threads=1)
for name in sys.argv[3:]:
    try:
        with SharedCache(model, n_ctx=100, type_k=name, type_v=name, attention=sys.argv[2]) as cache:
            a, b, c = (cache.block() for _ in "abc")
            cache.decode([([a], list(range(40)))])
            for _ in range(25):  # cells are moved
                cache.decode([([a, c, b], [1]), ([a, b, c], [2])])
            a.append(b)
            print(name, "finite" if np.isfinite(cache.decode([([c, b, a], [3])])).all() else "NaN", flush=True)
    except errors.HogwildError as error:
        print(name, type(error).__name__ if name in str(error) else f"not named: {error}", flush=True)
"""
ALL_TYPES = [
    "f32",
    "f16",
    "q4_0",
    "q4_1",
    "q5_0",
    "q5_1",
    "q8_0",
    "q8_1",
    "q2_K",
    "q3_K",
    "q4_K",
    "q5_K",
    "q6_K",
    "q8_K",
    "iq2_xxs",
    "iq2_xs",
    "iq3_xxs",
    "iq1_s",
    "iq4_nl",
    "iq3_s",
    "iq2_s",
    "iq4_xs",
    "i8",
    "i16",
    "i32",
    "i64",
    "f64",
    "iq1_m",
    "bf16",
    "tq1_0",
    "tq2_0",
    "mxfp4",
    "nvfp4",
    "DEPRECATED",
    "q4_0_4_4",
]
CACHE_TYPES = {"f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"}


@pytest.mark.parametrize("attention", ["fused", "ggml", "composed", "auto"])
def test_every_ggml_type_serves_or_is_refused_by_name(attention: str, tiny_path: Callable[..., Path]) -> None:
    done = run_isolated(USE_TYPE, tiny_path("llama-mha"), attention, *ALL_TYPES)
    assert done.returncode == 0, done.stdout + done.stderr
    result = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert list(result) == ALL_TYPES
    for name in ALL_TYPES:
        assert result[name] == ("finite" if name in CACHE_TYPES else "InvalidArgument")


def test_a_head_size_that_no_block_of_the_type_divides_is_named(single: Load) -> None:
    with pytest.raises(UnsupportedModel, match=r"keys of type q8_0.*multiple of 32.*has 20"):
        SharedCache(single("llama"), n_ctx=64, type_k="q8_0")
    with pytest.raises(UnsupportedModel, match="values of type q8_0"):
        SharedCache(single("llama"), n_ctx=64, type_v="q8_0")


# -- after close -----------------------------------------------------------------------------------------------


def test_use_after_close_is_closed(tiny_path: Callable[..., Path]) -> None:
    model = Model(tiny_path("llama-bos"), n_threads=1)
    cache = SharedCache(model, n_ctx=32)
    a, b = cache.block("a"), cache.block("b")
    sampler = Sampler(model)
    logits = cache.decode([([a], [1])])[0]
    cache.close()
    sampler.close()
    of_cache = [
        lambda: cache.decode([([a], [1])]), lambda: cache.decode([([a], [1] * 600)]), lambda: cache.block("c"),
        lambda: cache.n_free, lambda: cache.n_bytes, lambda: cache.n_moved, cache.check, lambda: len(a),
        lambda: a.append(b), a.clear, lambda: a.truncate(0), a.free,
    ]  # fmt: skip
    for call in of_cache:
        with pytest.raises(Closed, match="cache was closed"):
            call()
    for call in (lambda: sampler.sample(logits), sampler.reset):
        with pytest.raises(Closed, match="sampler was closed"):
            call()
    model.close()
    for call in (lambda: model.tokenize("a"), lambda: model.detokenize([1]), lambda: model.token_bytes(2),
                 lambda: SharedCache(model, n_ctx=32), lambda: Sampler(model),
                 lambda: model.llama_address):  # fmt: skip
        with pytest.raises(Closed, match="model was closed"):
            call()
    for thing in (model, cache, sampler):
        thing.close()


def test_a_cache_and_a_sampler_outlive_close_of_their_model(tiny_path: Callable[..., Path]) -> None:
    model = Model(tiny_path("llama-bos"), n_threads=1)
    cache, sampler = SharedCache(model, n_ctx=32), Sampler(model, SamplingParams(temperature=0))
    block = cache.block()
    model.close()
    logits = cache.decode([([block], [1, 2])])[0]
    assert sampler.sample(logits) == logits.argmax()
    cache.close()
    sampler.close()


def test_calls_after_errors_work(single: Load) -> None:
    with SharedCache(single("llama-bos"), n_ctx=2000, n_batch=100) as cache:
        block = cache.block()
        assert isinstance(block, CacheBlock)
        for _ in range(3):
            with pytest.raises(HogwildError):
                cache.decode([([block], [1] * 3000)])
            assert len(block) == 0
        cache.decode([([block], [1] * 2000)])
        assert cache.n_free == 0
    assert issubclass(OutOfMemory, HogwildError)
