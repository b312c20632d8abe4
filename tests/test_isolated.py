"""The engine in a process of its own: the same as in this one, and whatever ends it ends no other."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from isolated import run_isolated
from rpc_helper import needs_rpc, rpc_server

from hogwild_local import Hogwild, Model, Sampler, SamplingParams, SharedCache, errors, set_log_hook
from hogwild_local.engine import wire

PathOf = Callable[..., Path]
isolated = partial(Model, isolate=True)
posix = pytest.mark.skipif(os.name != "posix", reason="signals and processes as POSIX has them")


def is_alive(pid: int) -> bool:
    """Whether it runs; a zombie would be one that nobody waited for, and counts as alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_end(pid: int, seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not is_alive(pid)


def run_until(hogwild: Hogwild, happens: Callable[[], object]) -> None:
    """A run that something happens to in the middle."""
    for n, _ in enumerate(hogwild.stream("Count.", max_passes=1000, seed=1)):
        if n == 30:
            happens()


def tokens_of(result: object) -> dict[str, str]:
    return dict(result.texts)  # type: ignore[attr-defined]


# -- the same as in this process --


@pytest.mark.parametrize("layout", ["combined", "interleaved", "contiguous"])
def test_a_run_is_token_for_token_that_of_this_process(layout: str, tiny_path: PathOf) -> None:
    results = []
    for isolate in (False, True):
        with Hogwild(tiny_path("qwen3"), n_ctx=4096, n_threads=1, isolate=isolate) as hogwild:
            results.append(hogwild.generate("Count.", workers=3, layout=layout, reply=False, seed=5, max_passes=40))
    here, there = results
    assert tokens_of(here) == tokens_of(there)
    assert (here.history, here.reason, here.usage) == (there.history, there.reason, there.usage)


def test_logits_are_those_of_this_process_bit_by_bit(tiny_path: PathOf) -> None:
    rows = []
    for isolate in (False, True):
        with Model(tiny_path("llama"), n_threads=1, isolate=isolate) as model, SharedCache(model, n_ctx=256) as cache:
            a, b = cache.block("a"), cache.block("b")
            cache.decode([([a], [1, 2, 3])])
            cache.decode([([a, b], [4, 5])])
            a.append(b)
            a.truncate(4)
            rows.append(np.array(cache.decode([([a], [6]), ([a, b], [7])])))
            assert (len(a), len(b), cache.n_free) == (5, 1, 250)
    assert np.array_equal(*rows)


def test_a_sampler_takes_logits_that_were_sent(tiny_path: PathOf, single: Callable[..., Model]) -> None:
    with isolated(tiny_path("llama"), n_threads=1) as model, SharedCache(model, n_ctx=64) as cache:
        logits = cache.decode([([cache.block()], [1, 2, 3])])
        there = Sampler(model, SamplingParams(seed=3))
        here = Sampler(single("llama"), SamplingParams(seed=3))
        assert [there.sample(logits[0]) for _ in range(5)] == [here.sample(logits[0]) for _ in range(5)]


def test_the_tokenizer_is_that_of_this_process(tiny_path: PathOf, single: Callable[..., Model]) -> None:
    here = single("llama")
    with isolated(tiny_path("llama"), n_threads=1) as there:
        tokens = here.tokenize("Hello wörld")
        assert there.tokenize("Hello wörld") == tokens
        assert there.detokenize(tokens) == here.detokenize(tokens)
        for token in tokens:
            assert there.token_bytes(token) == here.token_bytes(token)
            assert there.token_text(token) == here.token_text(token)
            assert there.is_eog(token) == here.is_eog(token)
        for name in ("n_vocab", "n_ctx_train", "metadata", "description", "chat_template", "bos", "eos", "devices"):
            assert getattr(there, name) == getattr(here, name), name


# -- errors --


def test_errors_arrive_as_they_were_raised(tiny_path: PathOf, tmp_path: Path) -> None:
    with pytest.raises(errors.ModelError, match=r"none\.gguf"):
        isolated(tmp_path / "none.gguf")
    with pytest.raises(errors.InvalidArgument, match="n_threads"):
        isolated(tiny_path("llama"), n_threads=0)
    with pytest.raises(errors.InvalidArgument, match="a path of lora"):
        isolated(tiny_path("llama"), lora=[object()])
    with isolated(tiny_path("llama"), n_threads=1) as model:
        with pytest.raises(errors.InvalidArgument, match="type_k"):
            SharedCache(model, type_k="f99")
        with SharedCache(model, n_ctx=32) as cache, SharedCache(model, n_ctx=32) as other:
            block = cache.block("block")
            with pytest.raises(errors.CacheFull) as full:
                cache.decode([([block], [1] * 33)])
            assert (full.value.needed, full.value.free) == (33, 32)
            assert (len(block), cache.n_free) == (0, 32)
            with pytest.raises(errors.InvalidArgument, match="another cache"):
                cache.decode([([other.block()], [1])])
            with pytest.raises(errors.InvalidArgument, match="out of range"):
                cache.decode([([block], [model.n_vocab])])
            with pytest.raises(errors.InvalidArgument, match="block"):
                cache.decode([([], [1])])
            with pytest.raises(errors.InvalidArgument, match="keep 9 tokens"):
                block.truncate(9)
            block.free()
            with pytest.raises(errors.InvalidArgument, match="freed"):
                len(cache.decode([([block], [1])]))
        with pytest.raises(errors.Closed):
            cache.block()
    for use in (lambda: model.tokenize("x"), lambda: SharedCache(model), lambda: model.token_bytes(3)):
        with pytest.raises(errors.Closed):
            use()


def test_a_progress_callback_stops_the_load_as_in_this_process(tiny_path: PathOf) -> None:
    seen: list[float] = []
    isolated(tiny_path("llama"), n_threads=1, progress=seen.append).close()
    assert seen[-1] == 1.0
    with pytest.raises(errors.Cancelled):
        isolated(tiny_path("llama"), n_threads=1, progress=lambda part: False)
    with pytest.raises(ZeroDivisionError):
        isolated(tiny_path("llama"), n_threads=1, progress=lambda part: 1 / 0)


def test_log_lines_come_through(tiny_path: PathOf) -> None:
    lines: list[str] = []
    set_log_hook(lambda level, text: lines.append(text))
    try:
        isolated(tiny_path("llama"), n_threads=1).close()
    finally:
        set_log_hook(None)
    assert "llama_model_loader" in "".join(lines)


def test_only_plain_data_can_pass() -> None:
    for thing in (object(), print, Path("x"), Model):
        with pytest.raises(ValueError, match="unmarshallable"):
            wire.pack(thing)


# -- ends --


@posix
def test_a_child_that_is_killed_is_a_typed_error_and_a_new_engine_works(tiny_path: PathOf) -> None:
    hogwild = Hogwild(tiny_path("qwen3"), n_ctx=4096, n_threads=1, isolate=True)
    pid = hogwild.model.pid
    with pytest.raises(errors.EngineDied, match=r"SIGKILL.*make a new one"):
        run_until(hogwild, lambda: os.kill(pid, signal.SIGKILL))
    with pytest.raises(errors.EngineDied):  # again, not Busy
        hogwild.generate("Count.")
    hogwild.close()
    hogwild.close()
    assert not is_alive(pid)
    with pytest.raises(errors.Closed):
        hogwild.generate("Count.")
    with Hogwild(tiny_path("qwen3"), n_ctx=4096, n_threads=1, isolate=True) as again:
        assert again.generate("Count.", max_passes=5, reply=False, seed=1).timings.passes >= 5


@needs_rpc
@posix
def test_a_server_that_dies_ends_the_run_with_a_typed_error_and_the_caller_lives_on(tiny_path: PathOf) -> None:
    options = {"n_ctx": 4096, "n_threads": 1}
    with rpc_server() as server:
        hogwild = Hogwild(tiny_path("qwen3"), rpc=server.address, **options)
        pid = hogwild.model.pid
        with pytest.raises(errors.EngineDied) as died:
            run_until(hogwild, server.kill)
        assert server.address in str(died.value)
        assert "hogwild rpc-server" in str(died.value)
        assert " ggml-rpc.cpp:" in str(died.value)
        assert "Remote RPC server crashed" in str(died.value)
        assert not is_alive(pid)
        hogwild.close()
        with pytest.raises(errors.DeviceError, match="cannot be reached"):
            Hogwild(tiny_path("qwen3"), rpc=server.address, **options)
        port = server.port
    with rpc_server(port) as server, Hogwild(tiny_path("qwen3"), rpc=server.address, **options) as hogwild:
        there = hogwild.generate("Count.", reply=False, seed=1, max_passes=20)
    assert there.timings.passes >= 20


@needs_rpc
@posix
@pytest.mark.parametrize("when", ["cache", "append", "idle"])
def test_a_server_that_dies_at_any_point_is_a_typed_error(when: str, tiny_path: PathOf) -> None:
    with rpc_server() as server, isolated(tiny_path("llama"), n_threads=1, rpc=server.address) as model:
        cache = None if when == "cache" else SharedCache(model, n_ctx=128)
        if cache is not None:
            a, b = cache.block("a"), cache.block("b")
            cache.decode([([a], [1, 2])])
            cache.decode([([a, b], [3, 4])])
        server.kill()
        use = {
            "cache": lambda: SharedCache(model, n_ctx=128),
            "append": lambda: a.append(b),
            "idle": lambda: cache.decode([([a], [1])]),
        }
        with pytest.raises(errors.EngineDied):
            use[when]()
        pid = model.pid
        if cache is not None:
            a.free()  # nothing is left to free
            cache.close()
    assert not is_alive(pid)


@needs_rpc
@posix
def test_a_server_that_hangs_does_not_hang_close(tiny_path: PathOf) -> None:
    with rpc_server() as server:
        hogwild = Hogwild(tiny_path("qwen3"), n_ctx=4096, n_threads=1, rpc=server.address)
        pid, failures = hogwild.model.pid, []

        def run() -> None:
            try:
                run_until(hogwild, lambda: os.kill(server.process.pid, signal.SIGSTOP))
            except errors.HogwildError as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(2)
        hogwild.model.close()
        thread.join(20)
        assert not thread.is_alive()
        assert isinstance(failures[0], errors.Closed | errors.EngineDied)
        assert not is_alive(pid)
        hogwild.close()


def test_an_engine_that_is_dropped_ends_its_process(tiny_path: PathOf) -> None:
    model = isolated(tiny_path("llama"), n_threads=1)
    pid = model.pid
    del model
    gc.collect()
    assert wait_for_end(pid)


START = """
import os, signal, time
from hogwild_local import Hogwild
hogwild = Hogwild(sys.argv[1], n_ctx=512, n_threads=1, isolate=True)
print(hogwild.model.pid, flush=True)
"""


@posix
@pytest.mark.parametrize(
    "end", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)", "", "os.fork() or time.sleep(5); os._exit(0)"]
)
def test_the_death_of_the_parent_ends_the_child(end: str, tiny_path: PathOf) -> None:
    # The last one leaves a fork that holds the pipe open.
    prelude = f"import sys; sys.path.append({str(Path(__file__).parent.parent)!r})\n"
    code = prelude + START + end
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code, str(tiny_path("llama"))], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.wait(20)
        assert wait_for_end(pid)


@posix
def test_ctrl_c_interrupts_the_caller_and_leaves_the_engine_usable(tiny_path: PathOf) -> None:
    # To the whole group, as a terminal sends it.
    code = (
        START
        + """
os.setpgid(0, 0)
import threading
n = 0
for at in range(5):
    threading.Timer(0.2, lambda: os.killpg(0, signal.SIGINT)).start()
    try:
        while True:
            hogwild.generate("Count.", max_passes=50)
    except KeyboardInterrupt:
        n += 1
wanted = hogwild.generate("Count.", reply=False, seed=1, max_passes=10).texts
print(n, wanted == hogwild.generate("Count.", reply=False, seed=1, max_passes=10).texts)
hogwild.close()
"""
    )
    done = run_isolated(code.replace("n_ctx=512", "n_ctx=4096"), tiny_path("llama"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == "5 True"


def test_close_from_another_thread_ends_a_run(tiny_path: PathOf) -> None:
    hogwild = Hogwild(tiny_path("llama"), n_ctx=4096, n_threads=1, isolate=True)
    pid = hogwild.model.pid

    def run_for_ever() -> None:
        while True:
            hogwild.generate("Count.", max_passes=50)

    threading.Timer(0.3, hogwild.close).start()
    with pytest.raises(errors.Closed):
        run_for_ever()
    assert wait_for_end(pid)


def test_a_model_of_another_process_needs_no_engine_named(tiny_path: PathOf) -> None:
    with isolated(tiny_path("llama"), n_threads=1) as model, Hogwild(model, n_ctx=4096) as hogwild:
        assert hogwild.generate("Count.", max_passes=3, reply=False, seed=1).timings.passes >= 3
        assert hogwild.devices[0].cache_bytes > 0
    with (
        Model(tiny_path("llama"), n_threads=1) as model,
        pytest.raises(errors.InvalidArgument, match="give it to the Model"),
    ):
        Hogwild(model, isolate=True)
