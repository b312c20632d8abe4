"""Bad input: typed errors that name the fault and change nothing. What could end the process runs in another."""

from __future__ import annotations

import inspect
import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from isolated import run_isolated

from hogwild_local import CacheBlock, Model, Sampler, SamplingParams, SharedCache, errors
from hogwild_local.engine.native import ERROR_OF_STATUS, lib
from hogwild_local.errors import Closed, HogwildError, InvalidArgument, ModelError, OutOfMemory, UnsupportedModel

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


# -- files -----------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"No such file.*missing\.gguf"):
        Model(tmp_path / "missing.gguf")


def test_a_directory_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="directory"):
        Model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"G", b"GGU", b"%PDF-1.7 ...", b"\0" * 5000, b"FUGG" * 100])
def test_a_foreign_file_is_no_gguf_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ModelError, match="is not a GGUF file"):
        Model(tmp_path / "file")


def test_a_very_long_path_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="File name too long"):
        Model(tmp_path / ("x" * 100_000))


@pytest.mark.parametrize("path", ["a\0b", "\ud800", None, 5, [], 1.5])
def test_what_cannot_be_a_path_is_refused(path: object) -> None:
    with pytest.raises(InvalidArgument, match="path"):
        Model(path)


def test_a_path_that_is_not_utf8_is_found(tiny_path: Callable[..., Path], tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.gguf"
    try:
        Path(os.fsdecode(name)).write_bytes(tiny_path("llama-bos").read_bytes())
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    for path in (name, os.fsdecode(name)):
        Model(path, n_threads=1).close()


LOAD = """
import sys
from hogwild_local import Model, errors
for path in sys.argv[1:]:
    try:
        Model(path, n_threads=1).close()
        print("loaded", path, flush=True)
    except errors.ModelError as error:
        print("refused" if path in str(error) else f"refused without a name: {error}", path, flush=True)
"""


def test_a_model_cut_anywhere_is_refused(tiny_path: Callable[..., Path], tmp_path: Path) -> None:
    whole = tiny_path("llama-bos").read_bytes()
    paths = []
    for n in [4, 5, 8, 12, 23, 24, 30, 100, 1000, 5000, len(whole) // 2, len(whole) - 1000, len(whole) - 1]:
        paths.append(tmp_path / f"{n}.gguf")
        paths[-1].write_bytes(whole[:n])
    done = run_isolated(LOAD, *paths)
    assert done.stdout.splitlines() == [f"refused {path}" for path in paths], done.stderr
    assert done.stderr == ""
    assert done.returncode == 0


def test_random_bytes_after_the_magic_are_refused(tmp_path: Path) -> None:
    paths = []
    for seed in range(40):
        rng = random.Random(seed)
        paths.append(tmp_path / f"{seed}.gguf")
        version = (3).to_bytes(4, "little") if seed % 2 else b""
        counts = rng.randrange(20).to_bytes(8, "little") * 2 if seed % 4 == 1 else b""
        paths[-1].write_bytes(b"GGUF" + version + counts + rng.randbytes(rng.choice([10, 100, 5000])))
    done = run_isolated(LOAD, *paths)
    assert done.stdout.splitlines() == [f"refused {path}" for path in paths], done.stderr
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["bert", "mamba"])
def test_a_foreign_architecture_is_refused_by_name(name: str, tmp_path: Path) -> None:
    from models import write_foreign

    path = tmp_path / f"{name}.gguf"
    write_foreign(path, name)
    with pytest.raises(UnsupportedModel, match=name), Model(path, n_threads=1) as model:
        SharedCache(model, n_ctx=32)


# llama.cpp writes this model's attention out. With a cap of 0 its scores are inf * 0, which is no soft cap.
@pytest.mark.parametrize("cap", [0.0, -5.0])
def test_attention_whose_scores_are_changed_in_an_unknown_way_is_refused_by_name(cap: float, tmp_path: Path) -> None:
    from models import write_tiny

    path = tmp_path / "grok.gguf"
    write_tiny(path, "grok")
    GGUFReader(path, "r+").fields["grok.attn_logit_softcapping"].parts[-1][0] = cap
    with pytest.raises(UnsupportedModel, match=r"'grok'.*kq_tanh-0.*the scores"), Model(path, n_threads=1) as model:
        SharedCache(model, n_ctx=32)


@pytest.mark.parametrize("settings", [{"n_threads": 0}, {"n_threads": 10**6}, {"n_threads": "2"}, {"n_gpu_layers": -2},
                                      {"n_gpu_layers": 2**31}, {"n_gpu_layers": 1.0}])  # fmt: skip
def test_load_settings_are_checked_by_name(settings: dict[str, object], tiny_path: Callable[..., Path]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(settings))):
        Model(tiny_path("llama-bos"), **settings)


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


# -- views -----------------------------------------------------------------------------------------------------


class Scene:
    """A cache of three blocks, one of another cache, one freed."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.cache = SharedCache(model, n_ctx=64, n_batch=16, type_k="f32", type_v="f32")
        self.other_cache = SharedCache(model, n_ctx=64)
        self.a, self.b, self.c = (self.cache.block(name) for name in "abc")
        self.freed, self.foreign = self.cache.block("freed"), self.other_cache.block("foreign")
        self.cache.decode([([self.a], [1, 2, 3]), ([self.a, self.b], [4, 5])])
        self.freed.free()

    def state(self) -> tuple[list[int], int, int]:
        return [len(self.a), len(self.b), len(self.c)], self.cache.n_free, len(self.foreign)

    def logits(self) -> np.ndarray:
        return self.cache.decode([([self.a, self.b, self.c], [6])])

    def close(self) -> None:
        self.cache.close()
        self.other_cache.close()


LONG = [1] * 20  # longer than n_batch: taken in chunks
BAD_VIEWS: dict[str, tuple[Callable[[Scene], object], str]] = {
    "no views": (lambda s: [], "no views"),
    "None": (lambda s: None, "pairs"),
    "a number": (lambda s: 5, "pairs"),
    "no pair": (lambda s: [[s.a]], "pairs"),
    "a triple": (lambda s: [([s.a], [1], [2])], "pairs"),
    "a block that is no list": (lambda s: [(s.a, [1])], "pairs"),
    "an empty view": (lambda s: [([], [1])], "no blocks"),
    "a long empty view": (lambda s: [([], LONG)], "no blocks"),
    "no tokens": (lambda s: [([s.a], [])], "no tokens"),
    "tokens None": (lambda s: [([s.a], None)], "tokens"),
    "tokens a number": (lambda s: [([s.a], 1)], "tokens"),
    "tokens a text": (lambda s: [([s.a], "12")], "tokens"),
    "tokens of two dimensions": (lambda s: [([s.a], np.ones((2, 2), dtype=int))], "tokens"),
    "one view without tokens": (lambda s: [([s.a], [1]), ([s.b], [])], "no tokens"),
    "no block": (lambda s: [([1], [1])], "not a block"),
    "None for a block": (lambda s: [([s.a, None], [1])], "not a block"),
    "a freed own block": (lambda s: [([s.a, s.freed], [1])], "'freed' was freed"),
    "a freed other block": (lambda s: [([s.freed, s.a], [1])], "'freed' was freed"),
    "a foreign own block": (lambda s: [([s.a, s.foreign], [1])], "'foreign' is of another cache"),
    "a foreign other block": (lambda s: [([s.foreign, s.a], [1])], "'foreign' is of another cache"),
    "a block twice": (lambda s: [([s.b, s.b, s.a], [1])], "twice"),
    "the own block twice": (lambda s: [([s.a, s.a], [1])], "twice"),
    "a block twice, long": (lambda s: [([s.a, s.a], LONG)], "twice"),
    "a block twice in the second view": (lambda s: [([s.a], [1]), ([s.c, s.c, s.b], [1])], "twice"),
    "own block of two views": (lambda s: [([s.b, s.a], [1]), ([s.c, s.a], [2])], "own block of two views"),
    "too many tokens": (lambda s: [([s.a], [1] * 9), ([s.b], [1] * 8)], "n_batch"),
}


@pytest.mark.parametrize("case", BAD_VIEWS)
def test_a_bad_view_is_refused_and_changes_nothing(case: str, single: Load) -> None:
    views, words = BAD_VIEWS[case]
    scenes = [Scene(single("llama-bos")) for _ in range(2)]
    before = scenes[0].state()
    with pytest.raises(InvalidArgument, match=words):
        scenes[0].cache.decode(views(scenes[0]))
    assert scenes[0].state() == before
    scenes[0].cache.check()
    assert np.array_equal(scenes[0].logits(), scenes[1].logits())
    for scene in scenes:
        scene.close()


BAD_APPENDS: dict[str, Callable[[Scene], object]] = {
    "itself": lambda s: s.a.append(s.a),
    "of another cache": lambda s: s.a.append(s.foreign),
    "to another cache": lambda s: s.foreign.append(s.a),
    "freed": lambda s: s.a.append(s.freed),
    "to freed": lambda s: s.freed.append(s.a),
    "None": lambda s: s.a.append(None),
    "tokens": lambda s: s.a.append([1, 2]),
    "clear freed": lambda s: s.freed.clear(),
    "truncate freed": lambda s: s.freed.truncate(0),
    "free twice": lambda s: s.freed.free(),
    "len of freed": lambda s: len(s.freed),
}


@pytest.mark.parametrize("case", BAD_APPENDS)
def test_a_bad_operation_on_blocks_changes_nothing(case: str, single: Load) -> None:
    scenes = [Scene(single("llama-bos")) for _ in range(2)]
    before = scenes[0].state()
    with pytest.raises(InvalidArgument):
        BAD_APPENDS[case](scenes[0])
    assert scenes[0].state() == before
    assert np.array_equal(scenes[0].logits(), scenes[1].logits())
    for scene in scenes:
        scene.close()


# -- caches ----------------------------------------------------------------------------------------------------

BAD_TYPES = [None, 1, "", "F16", "f16\0", "\ud800", "q9", "f" * 9999]


@pytest.mark.parametrize(
    "settings",
    [{name: value} for name in ("n_ctx", "n_batch") for value in (0, -1, 2**31, 2**64, *NOT_NUMBERS)]
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
        lambda: cache.decode([([a], [1])]), lambda: cache.decode([([a], LONG * 30)]), lambda: cache.block("c"),
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


# -- samplers --------------------------------------------------------------------------------------------------

BAD_PARAMS: list[dict[str, object]] = [
    {"grammar": "root ::= ("}, {"grammar": "other ::= [a]"}, {"grammar": 'root ::= root "a"'}, {"grammar": 5},
    {"grammar": 'root ::= "\ud800"'}, {"grammar": 'root ::= "a"\0'}, {"grammar": 'root ::= "a"{1000000}'},
    {"logit_bias": {10**6: 1.0}}, {"logit_bias": {-1: 1.0}}, {"logit_bias": {1: float("nan")}},
    {"logit_bias": {1: float("inf")}}, {"logit_bias": {1: "x"}}, {"logit_bias": {1.5: 1.0}}, {"logit_bias": [1]},
    {"logit_bias": {True: 1.0}}, {"top_k": 2**40}, {"penalty_last_n": 2**40}, {"penalty_last_n": -1},
]  # fmt: skip


@pytest.mark.parametrize("params", BAD_PARAMS, ids=str)
def test_sampling_params_are_checked_by_name(params: dict[str, object], single: Load) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(params))):
        Sampler(single("llama"), SamplingParams(**params))


def bad_logits(n: int) -> list[tuple[object, str]]:
    nan, plus, nothing = (np.zeros(n, dtype=np.float32) for _ in range(3))
    nan[3], plus[5], nothing[:] = np.nan, np.inf, -np.inf
    return [
        (nan, "token 3"), (plus, "token 5"), (nothing, "not finite"), (np.zeros(n), "float64"),
        (np.zeros(n - 1, dtype=np.float32), "float32"), (np.zeros((1, n), dtype=np.float32), "float32"),
        (np.zeros(2 * n, dtype=np.float32)[::2], "contiguous"), (np.zeros(n, dtype=">f4"), "float32"),
        ([0.0] * n, "list"), (None, "NoneType"),
    ]  # fmt: skip


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_bad_logits_are_refused_and_not_counted(temperature: float, single: Load) -> None:
    model = single("llama")
    samplers = [Sampler(model, SamplingParams(temperature=temperature, repeat_penalty=1.3, seed=3)) for _ in range(2)]
    rng = np.random.default_rng(0)
    for _ in range(5):
        for logits, words in bad_logits(model.n_vocab):
            with pytest.raises(InvalidArgument, match=words):
                samplers[0].sample(logits)
        logits = rng.normal(size=model.n_vocab).astype(np.float32)
        assert samplers[0].sample(logits) == samplers[1].sample(logits)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_where_no_token_is_allowed_none_is_chosen(temperature: float, single: Load) -> None:
    model = single("llama")
    ends = {token: float("-inf") for token in range(model.n_vocab) if model.is_eog(token)}
    zeros = np.zeros(model.n_vocab, dtype=np.float32)
    params = SamplingParams(temperature=temperature, grammar='root ::= "a"', logit_bias=ends)
    sampler = Sampler(model, params)
    assert model.token_bytes(sampler.sample(zeros)) == b"a"
    for _ in range(3):
        with pytest.raises(InvalidArgument, match="none is allowed"):
            sampler.sample(zeros)
    sampler.reset()
    assert model.token_bytes(sampler.sample(zeros)) == b"a"
    everything = SamplingParams(temperature=temperature, logit_bias=dict.fromkeys(range(model.n_vocab), float("-inf")))
    with pytest.raises(InvalidArgument, match="none is allowed"):
        Sampler(model, everything).sample(zeros)


def test_extreme_sampling_never_ends_the_process(tiny_path: Callable[..., Path]) -> None:
    code = """
import sys
import numpy as np
from hogwild_local import Model, Sampler, SamplingParams, errors
model = Model(sys.argv[1], n_threads=1)
zeros = np.zeros(model.n_vocab, dtype=np.float32)
huge = np.full(model.n_vocab, 3e38, dtype=np.float32)
cases = [
    dict(grammar="root ::= " + "(" * 200_000 + '"a"' + ")" * 200_000), dict(grammar='root ::= [z-a]'), dict(grammar=""),
    dict(grammar='root ::= ""'), dict(grammar='root ::= (("a"{2000}){2000}){2000}'), dict(grammar='root ::= ("a"*)*'),
    dict(temperature=1e-44), dict(temperature=1e38), dict(min_p=5.0), dict(top_p=-1.0), dict(top_k=-5),
    dict(top_k=2**31 - 1),
    dict(repeat_penalty=1e38, presence_penalty=1e38, frequency_penalty=1e38), dict(repeat_penalty=1e-38),
    dict(penalty_last_n=2**20, repeat_penalty=1.1), dict(logit_bias={1: -1e38, 2: 1e38}),
]
for case in cases:
    for logits in (zeros, huge, -huge):
        try:
            sampler = Sampler(model, SamplingParams(**case))
            for _ in range(4):
                assert 0 <= sampler.sample(logits) < model.n_vocab
        except errors.InvalidArgument:
            pass
print("alive")
"""
    done = run_isolated(code, tiny_path("llama"))
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr


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
