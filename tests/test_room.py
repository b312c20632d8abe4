"""How long a context is where nobody says so: what the model was trained for, at most 32,768, and no more than half of
the free memory holds; and that this is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fakes import TINY_STYLE, FakeEngine, FakeModel
from rpc_helper import needs_rpc, rpc_server
from test_runahead import ranks

from hogwild_local import Hogwild, Model, SharedCache, set_log_hook
from hogwild_local.cli.loaded import size_text
from hogwild_local.cli.main import cli
from hogwild_local.engine import native
from hogwild_local.engine.devices import Device
from hogwild_local.engine.native import ffi, free_host_memory, lib
from hogwild_local.engine.room import LEAST, SHARE, STEP, usual_n_ctx
from hogwild_local.errors import InvalidArgument
from hogwild_local.options import MOST_N_CTX
from hogwild_local.runahead.leader import LeaderModel
from hogwild_local.runahead.place import Place, n_on_machine

HOW = (512, b"f16", b"f16", "auto", 8)


@pytest.mark.parametrize(
    ("trained", "fits", "n_ctx"),
    [
        (0, 10**6, MOST_N_CTX),
        (1000, 10**6, 1000),
        (10**6, 10**6, MOST_N_CTX),
        (40_960, 20_000, 20_000 // STEP * STEP),
        (1000, 900, 768),
        (40_960, 100, LEAST),
        (300, 0, 300),
    ],
)
def test_the_usual_context_is_bounded_by_training_by_32768_and_by_memory(trained: int, fits: int, n_ctx: int) -> None:
    asked: list[tuple[float, int]] = []

    def room(share: float, most: int) -> int:
        asked.append((share, most))
        return min(fits, most)

    assert usual_n_ctx(trained, room) == n_ctx
    assert asked == [(SHARE, min(trained or MOST_N_CTX, MOST_N_CTX))]


def test_a_cache_and_a_hogwild_of_no_size_have_the_usual_one(tiny_path: Callable[..., Path]) -> None:
    with Model(tiny_path("llama"), n_threads=1) as model:
        expected = model.n_ctx_train
        assert 512 < expected < MOST_N_CTX
        with SharedCache(model, None) as cache:
            assert (cache.n_ctx, cache.n_free) == (expected, expected)
    with Hogwild(tiny_path("llama"), n_threads=1, prompts=TINY_STYLE) as hw:
        assert hw.n_ctx == expected


def test_an_engine_in_a_process_of_its_own_has_the_usual_context_too(tiny_path: Callable[..., Path]) -> None:
    with Hogwild(tiny_path("llama"), n_threads=1, prompts=TINY_STYLE, isolate=True) as hw:
        assert hw.n_ctx == hw.model.n_ctx_train


@pytest.mark.parametrize(
    ("name", "type_k", "type_v"),
    [
        ("llama", "f16", "f16"),
        ("qwen3", "f32", "q8_0"),
        ("llama-mha", "q4_0", "q4_0"),
        ("gemma2", "bf16", "f32"),  # with windows
    ],
)
def test_no_more_tokens_are_promised_than_the_share_holds_and_hardly_fewer(
    name: str, type_k: str, type_v: str, single: Callable[..., Any]
) -> None:
    """The memory that is free changes while we look: it is asked before and after."""
    model, most = single(name), 200_000
    share = 4e6 / free_host_memory()  # so much that memory decides
    before = free_host_memory()
    n = model._native.room(share, most, 512, type_k.encode(), type_v.encode(), "auto", 8)
    after = free_host_memory()
    assert 0 < n < most
    with SharedCache(model, n, type_k=type_k, type_v=type_v) as cache:
        n_bytes = cache._native.number("n_bytes")
    largest, smallest = share * max(before, after), share * min(before, after)
    mapped = sum(device.weight_bytes for device in model.devices)
    # The matrices of quantized types, and the alignment of tensors, are a few kilobytes.
    assert 0.97 * (smallest - share * mapped) - 64e3 <= n_bytes <= 1.03 * largest


@pytest.mark.parametrize("name", ["qwen35", "granitehybrid"])
def test_what_a_run_keeps_of_recurrent_layers_is_within_the_share(name: str, single: Callable[..., Any]) -> None:
    model, most = single(name), 200_000
    before = free_host_memory()
    share = 4e6 / before
    n = model._native.room(share, most, *HOW)
    assert 2000 < n < most
    largest = share * max(before, free_host_memory())
    with SharedCache(model, n) as cache:
        without = cache._native.number("n_bytes")
        prompt, workers = cache.block(), [cache.block() for _ in range(4)]
        for _ in range(2):
            cache.decode([([prompt], [1 + i % 50 for i in range(450)])])
        for token in range(80):
            cache.decode([([prompt, block], [1 + token % 50]) for block in workers])
        states = cache._native.number("n_bytes") - without
        assert without + states <= 1.03 * largest
        assert states > 0.06 * largest  # so that it is seen where they are forgotten


def test_other_types_make_room_for_as_many_tokens_as_they_are_smaller(single: Callable[..., Any]) -> None:
    model = single("llama")
    share = 4e6 / free_host_memory()
    rooms = {kind: model._native.room(share, 10**6, 512, kind, kind, "auto", 8) for kind in (b"f32", b"f16")}
    assert rooms[b"f16"] == pytest.approx(2 * rooms[b"f32"], rel=0.05)


def test_where_all_fits_it_is_what_was_asked_for_and_where_nothing_does_it_is_none(single: Callable[..., Any]) -> None:
    model = single("llama")
    assert model._native.room(1.0, 777, *HOW) == 777
    assert model._native.room(1e-12, 777, *HOW) == 0


def test_weights_that_are_mapped_from_files_are_known(tiny_path: Callable[..., Path]) -> None:
    with (
        Model(tiny_path("llama"), n_threads=1) as mapped,
        Model(tiny_path("llama"), n_threads=1, use_mmap=False) as read,
    ):
        assert mapped._native.number("n_mapped_bytes") == sum(device.weight_bytes for device in mapped.devices) > 0
        assert read._native.number("n_mapped_bytes") == 0


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float, single: Callable[..., Any]) -> None:
    with pytest.raises(InvalidArgument, match="share"):
        single("llama")._native.room(share, 777, *HOW)


def test_room_is_refused_for_what_no_cache_can_be(single: Callable[..., Any], tiny_path: Callable[..., Path]) -> None:
    with pytest.raises(InvalidArgument, match="type_k"):
        single("llama")._native.room(0.5, 777, 512, b"f8", b"f16", "auto", 8)
    with pytest.raises(InvalidArgument, match="n_ctx"):
        single("llama")._native.room(0.5, 0, *HOW)
    with Model(tiny_path("llama"), vocab_only=True) as model, pytest.raises(InvalidArgument, match="vocab_only"):
        model._native.room(0.5, 777, *HOW)
    text = ffi.new("char[]", 256)
    params = ffi.new("struct hw_cache_params *", {"n_ctx": 5, "n_batch": 5})
    assert lib.hw_cache_room(ffi.NULL, params, 0.5, ffi.new("int32_t *"), text, 256) == lib.HW_ERROR_ARGUMENT


@needs_rpc
def test_what_is_free_on_other_devices_counts(tiny_path: Callable[..., Path]) -> None:
    """The server's device is this machine's CPU, of which ggml calls all memory free."""
    with rpc_server() as server, Model(tiny_path("llama"), n_threads=1, rpc=server.address) as model:
        share = 4e6 / free_host_memory()
        n = model._native.room(share, 10**6, *HOW)
        assert 0 < n < 10**6
        assert model._native.room(share / 2, 10**6, *HOW) == pytest.approx(n / 2, rel=0.1)


def test_a_chosen_size_is_logged(single: Callable[..., Any]) -> None:
    lines: list[str] = []
    set_log_hook(lambda level, text: lines.append(text))
    try:
        SharedCache(single("llama"), None).close()
        chosen = [line for line in lines if line.startswith("hogwild: n_ctx is 8192, which takes ")]
        SharedCache(single("llama"), 100).close()
    finally:
        set_log_hook(None)
    assert [line for line in lines if "n_ctx is" in line] == chosen
    assert len(chosen) == 1


# -- several ranks ------------------------------------------------------------------------------------------------


def test_the_rank_with_the_least_room_decides_and_ranks_of_a_machine_share_its_memory(
    tiny_path: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []

    def room(model: native.NativeModel, share: float, *arguments: Any) -> int:
        shares.append(share)
        return 3000 if isinstance(model, LeaderModel) else 1500

    monkeypatch.setattr(native.NativeModel, "room", room)
    with ranks(tiny_path("llama"), 3) as (model, _), SharedCache(model, None) as cache:
        assert cache.n_ctx == 1500 // STEP * STEP
    assert shares == [SHARE / 3] * 3


def test_ranks_of_a_machine_are_counted() -> None:
    places = [Place("a", machine, frozenset({0})) for machine in ("x", "y", "x")]
    assert [n_on_machine(places, rank) for rank in range(3)] == [2, 1, 2]


# -- what is said -------------------------------------------------------------------------------------------------


def said(fake: FakeEngine, *arguments: str) -> list[str]:
    result = CliRunner().invoke(cli, ["run", "-m", "m.gguf", "-n", "1", *arguments, "P"], obj=fake.engine)
    assert result.exit_code == 0, result.stderr
    return [line for line in result.stderr.splitlines() if line.startswith("hogwild: context")]


class Cramped(FakeEngine):
    """On a machine with little memory, of which a cache takes 1.25 GB."""

    def _make_cache(self, model: FakeModel, **arguments: Any) -> Any:
        cache = super()._make_cache(model, **{**arguments, "n_ctx": arguments["n_ctx"] or 4096})
        cache.devices = [Device("CPU", "a CPU", cache_layers=(0,), cache_bytes=1_250_000_000)]
        return cache


def test_the_context_is_said_with_what_it_takes_and_why_it_is_short() -> None:
    assert said(FakeEngine()) == ["hogwild: context 8192 tokens"]
    short = "hogwild: context 4096 tokens, 1.2 GB (half of the free memory has no room for 8192)"
    assert said(Cramped()) == [short]
    assert said(Cramped(), "--ctx", "5000") == ["hogwild: context 5000 tokens, 1.2 GB"]
    assert said(FakeEngine(), "--json") == []


def test_what_the_models_file_says_of_sampling_is_said_unless_an_option_says_otherwise() -> None:
    fake = FakeEngine()
    fake.model.metadata = {"general.sampling.temp": "0.6", "general.sampling.top_k": "20"}
    assert said(fake)[0].endswith("; sampling as the model says: temperature 0.6, top_k 20")
    assert said(fake, "--temp", "0")[0].endswith("; sampling as the model says: top_k 20")
    assert said(fake, "--temp", "0", "--top-k", "1") == ["hogwild: context 8192 tokens"]


def test_sizes_are_in_words_of_people() -> None:
    assert [size_text(n) for n in (1, 12_400_000, 3.54e9)] == ["1 MB", "12 MB", "3.5 GB"]
