"""One prompt prefilled by several ranks (KV-Runahead), in threads of one process: afterwards the last rank holds what
it would hold had it fed the prompt alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from isolated import run_isolated
from mla import CELL_BYTES, write_mla
from ranks import Wires, rounding
from rpc_helper import needs_rpc, rpc_server
from test_blocks import Load, Paths, probe, tokens_of

from hogwild_local import Model, SharedCache
from hogwild_local.engine import native
from hogwild_local.engine.views import Chunk, DecodeView
from hogwild_local.errors import HogwildError, InvalidArgument, ModelError, OutOfMemory, RankLost
from hogwild_local.runahead import chunk, helper
from hogwild_local.runahead.helper import serve
from hogwild_local.runahead.leader import Group, Leader
from hogwild_local.runahead.partition import Partition, checked, even

F32 = {"type_k": "f32", "type_v": "f32"}


@contextlib.contextmanager
def ranks(
    path: Path | Sequence[Path],
    n: int,
    cut: Callable[[int, int], Partition] | None = even,
    lose: tuple[int, int] | None = None,
    n_threads: int | None = 1,
    device: str = "",
) -> Iterator[tuple[Model, Group]]:
    """The model of the last of n ranks, the others in threads. path: of each rank's model, or of all."""
    paths = [path] * n if isinstance(path, Path) else path
    wires = Wires(n, lose)
    errors: list[BaseException] = []

    class Native:
        """The native module of a rank, with a model file of its own."""

        def __init__(self, rank: int) -> None:
            self.path = bytes(paths[rank])
            self.gpus = native.gpus

        def NativeModel(self, settings: dict[str, object]) -> native.NativeModel:
            return native.NativeModel({**settings, "path": self.path})

    def rank(index: int) -> None:
        try:
            serve(wires.transport(index), Native(index))
        except HogwildError as error:
            errors.append(error)

    threads = [threading.Thread(target=rank, args=(index,), daemon=True) for index in range(n - 1)]
    for thread in threads:
        thread.start()
    group = Group(wires.transport(n - 1), cut)
    try:
        with Model(paths[-1], n_threads=n_threads, device=device, native=Leader(group)) as model:
            yield model, group
    finally:
        group.end()
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)


def cut(*chunks: int) -> Callable[[int, int], Partition]:
    return lambda n_tokens, n_ranks: chunks


def alone(model: Model, tokens: Sequence[int], chunks: Partition = (), **options: object) -> list[np.ndarray]:
    """What a single process says after the prompt, and after a token that sees it. chunks: what it feeds at once."""
    with SharedCache(model, n_ctx=400, n_batch=400, **options) as cache:
        block, begin = cache.block(), 0
        for n in chunks or (len(tokens),):
            logits = cache.decode([([block], tokens[begin : begin + n])])[0]
            begin += n
        return [logits, probe(cache, block)]


@pytest.mark.parametrize("chunks", [(150,), (75, 75), (1, 149), (149, 1), (60, 50, 40), (1, 1, 148), (40, 40, 40, 30)])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "qwen3-yarn"])
def test_logits_are_those_of_a_single_process(name: str, chunks: Partition, tiny_path: Paths, single: Load) -> None:
    tokens = tokens_of(single(name), 150)
    wanted = alone(single(name), tokens, **F32)
    with (
        ranks(tiny_path(name), len(chunks), cut(*chunks)) as (model, group),
        SharedCache(model, n_ctx=400, n_batch=400, **F32) as cache,
    ):
        block = cache.block()
        logits = cache.decode([([block], tokens)])[0]
        assert [trace.n_tokens for trace in group.traces] == (list(chunks) if len(chunks) > 1 else [])
        assert np.abs(logits - wanted[0]).max() <= rounding(name, wanted[0])
        assert np.abs(probe(cache, block) - wanted[1]).max() <= rounding(name, wanted[1])
        assert block.tokens == tokens
        cache.check()


@pytest.mark.parametrize("attention", ["fused", "ggml", "composed"])
@pytest.mark.parametrize("cache_type", ["f16", "q8_0", "q4_0"])
def test_a_cache_travels_as_it_is_stored(cache_type: str, attention: str, tiny_path: Paths, single: Load) -> None:
    tokens = tokens_of(single("llama-mha"), 120)
    options = {"type_k": cache_type, "type_v": cache_type, "attention": attention}
    # With the same chunks: ggml's attention rounds otherwise in passes of another size.
    wanted = alone(single("llama-mha"), tokens, (50, 40, 30), **options)
    with (
        ranks(tiny_path("llama-mha"), 3, cut(50, 40, 30)) as (model, group),
        SharedCache(model, n_ctx=400, n_batch=400, **options) as cache,
    ):
        block = cache.block()
        logits = cache.decode([([block], tokens)])[0]
        assert np.abs(logits - wanted[0]).max() <= 1e-3
        assert np.abs(probe(cache, block) - wanted[1]).max() <= 1e-3
        bytes_of_token = sum(cache._native.layer_bytes(layer, 1) for layer in range(cache._native.n_layers()))
        assert [trace.n_sent for trace in group.traces] == [50 * bytes_of_token, 90 * bytes_of_token, 0]
        assert [trace.n_received for trace in group.traces] == [0, 50 * bytes_of_token, 90 * bytes_of_token]


@pytest.mark.parametrize("attention", ["fused", "ggml", "composed"])
def test_values_that_are_part_of_the_keys_travel_once(attention: str, tmp_path: Path) -> None:
    path, options = write_mla(tmp_path / "mla.gguf"), {**F32, "attention": attention}
    with Model(path, n_threads=1) as model:
        tokens = tokens_of(model, 90)
        wanted = alone(model, tokens, **options)
    with (
        ranks(path, 3, cut(40, 30, 20)) as (model, group),
        SharedCache(model, n_ctx=400, n_batch=400, **options) as cache,
    ):
        block = cache.block()
        assert np.abs(cache.decode([([block], tokens)])[0] - wanted[0]).max() <= 1e-3
        assert np.abs(probe(cache, block) - wanted[1]).max() <= 1e-3
        assert group.traces[1].n_sent == 70 * CELL_BYTES


def test_only_what_is_new_of_a_prompt_is_prefilled(tiny_path: Paths, single: Load) -> None:
    tokens = tokens_of(single("gemma2"), 260)
    wanted = alone(single("gemma2"), tokens, **F32)
    with ranks(tiny_path("gemma2"), 3) as (model, group), SharedCache(model, n_ctx=400, n_batch=400, **F32) as cache:
        first, second = cache.block(), cache.block()
        cache.decode([([first], tokens[:100])])
        cache.decode([([first], tokens[100:110])])  # as a worker would, in the last rank alone
        cache.decode([([first], tokens[110:170])])
        assert [trace.n_tokens for trace in group.traces] == [20, 20, 20]
        logits = cache.decode([([first, second], tokens[170:])])[0]
        assert [trace.n_tokens for trace in group.traces] == [30, 30, 30]
        assert np.abs(logits - wanted[0]).max() <= rounding("gemma2", wanted[0])
        assert np.abs(probe(cache, first, second) - wanted[1]).max() <= rounding("gemma2", wanted[1])
        # What the last rank has goes to the first one, and does not come back.
        n = [trace.n_received for trace in group.traces]
        assert n[0] == 170 * n[2] // 60


def test_a_block_that_stands_elsewhere_is_fed_by_the_last_rank_alone(tiny_path: Paths, single: Load) -> None:
    tokens = tokens_of(single("qwen3"), 150)
    with ranks(tiny_path("qwen3"), 2) as (model, group), SharedCache(model, n_ctx=400, n_batch=400, **F32) as cache:
        first, second = cache.block(), cache.block()
        cache.decode([([first], tokens[:10])])
        cache.decode([([first, second], tokens[10:20])])
        cache.decode([([second], tokens[20:])])
        assert group.traces == []


def test_generation_goes_on_token_for_token(tiny_path: Paths, single: Load) -> None:
    tokens = tokens_of(single("llama"), 150)

    def greedy(cache: SharedCache) -> list[int]:
        block, fed = cache.block(), tokens
        chosen = []
        for _ in range(20):
            fed = [int(cache.decode([([block], fed)])[0].argmax())]
            chosen += fed
        return chosen

    with SharedCache(single("llama"), n_ctx=400, n_batch=400) as cache:
        wanted = greedy(cache)
    with ranks(tiny_path("llama"), 3) as (model, group), SharedCache(model, n_ctx=400, n_batch=400) as cache:
        assert greedy(cache) == wanted
        assert len(group.traces) == 3


def test_caches_of_other_ranks_go_with_those_of_the_last_one(tiny_path: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    helpers: list[helper.Helper] = []

    class Kept(helper.Helper):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            helpers.append(self)

    monkeypatch.setattr(helper, "Helper", Kept)
    with ranks(tiny_path("llama"), 3) as (model, _):
        with SharedCache(model, n_ctx=400) as first, SharedCache(model, n_ctx=400):
            assert [len(each._objects) for each in helpers] == [3, 3]
            with pytest.raises(InvalidArgument, match="type_k"):
                model._native.cache(400, 512, b"no type", b"f16", "auto", 8)
            first.close()
            assert [len(each._objects) for each in helpers] == [2, 2]
        assert [len(each._objects) for each in helpers] == [1, 1]
        last = SharedCache(model, n_ctx=400)
    last.close()  # the others have ended with the model


# -- what goes wrong -------------------------------------------------------------------------------------------


def test_a_rank_that_breaks_down_in_the_middle_leaves_the_cache(tiny_path: Paths, single: Load) -> None:
    tokens = tokens_of(single("llama"), 150)
    with ranks(tiny_path("llama"), 3, lose=(1, 1)) as (model, _), SharedCache(model, n_ctx=400, n_batch=400) as cache:
        block, other = cache.block(), cache.block()
        cache.decode([([block], tokens[:20]), ([other], tokens[20:30])])
        before = [cache.read(block), cache.read(other), probe(cache, block)]
        with pytest.raises(RankLost):
            cache.decode([([block], tokens[20:])])
        assert (len(block), cache.n_free) == (20, 370)
        cache.check()
        assert [cache.read(block), cache.read(other)] == before[:2]
        assert np.array_equal(probe(cache, block), before[2])


def test_memory_that_is_not_there_is_an_error_and_the_cache_is_as_before(
    tiny_path: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(n_bytes: int, dtype: object) -> None:
        raise MemoryError

    with ranks(tiny_path("llama"), 2) as (model, _), SharedCache(model, n_ctx=400, n_batch=400) as cache:
        block = cache.block()
        monkeypatch.setattr(chunk, "np", SimpleNamespace(empty=no_memory, uint8=np.uint8))
        with pytest.raises(OutOfMemory, match="that ranks exchange"):
            cache.decode([([block], tokens_of(model, 100))])
        assert (len(block), cache.n_free) == (0, 400)


@pytest.mark.parametrize(("error", "is_in_step"), [(KeyboardInterrupt(), False), (InvalidArgument("no"), True)])
def test_ranks_that_were_interrupted_amid_question_and_answer_are_of_no_use(
    error: BaseException, is_in_step: bool, tiny_path: Paths
) -> None:
    with ranks(tiny_path("llama"), 2) as (_, group):
        with pytest.raises(type(error)), group.asked("clock"):
            raise error
        assert group.transport.wires.lost.is_set() != is_in_step  # type: ignore[attr-defined]


def test_model_files_that_differ_are_refused(tiny_path: Paths, tmp_path: Path) -> None:
    from models.tiny import write_tiny

    write_tiny(other := tmp_path / "other.gguf", "llama", seed=1)
    with (
        ranks([other, tiny_path("llama")], 2) as (model, _),
        pytest.raises(ModelError, match=r"rank 0 .*weights=\w+ there"),
    ):
        SharedCache(model, n_ctx=400)


def test_what_a_rank_raises_is_raised_by_the_last_one(tiny_path: Paths, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"rank 0: .*missing"), ranks([tmp_path / "missing", tiny_path("llama")], 2):
        pass


@pytest.fixture
def chunk_cache(single: Load) -> Iterator[native.NativeCache]:
    with SharedCache(single("llama"), n_ctx=100, n_batch=40, **F32) as cache:
        yield cache._native


def layers_for(cache: native.NativeCache, n: int) -> list[np.ndarray]:
    return [np.zeros(cache.layer_bytes(layer, n), dtype=np.uint8) for layer in range(cache.n_layers())]


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("wants_own", [False, True])
def test_a_callback_that_raises_ends_the_pass_and_leaves_the_cache(
    layer: int, wants_own: bool, chunk_cache: native.NativeCache
) -> None:
    block, seen = chunk_cache.new_block(), []
    chunk_cache.decode([DecodeView([block], [1, 2, 3], 0)])
    before = chunk_cache.read(block)

    def stop(at: int) -> None:
        seen.append(at)
        if at == layer:
            raise KeyError("stop")

    wanted = Chunk([4, 5], layers_for(chunk_cache, 12), stop, wants_own)
    with pytest.raises(KeyError, match="stop"):
        chunk_cache.decode_chunk(DecodeView([block], list(range(12)), 0), wanted)
    assert seen == list(range(layer + 1))  # no layer after it is computed
    assert chunk_cache.blocks() == {block: 3}
    assert chunk_cache.read(block) == before
    chunk_cache.check()
    chunk_cache.decode([DecodeView([block], [4], 1, wants_logits=True)])


@pytest.mark.parametrize(
    ("n_tokens", "n_outputs", "runs", "message"),
    [
        (10, 0, [10], "one at least must be left"),
        (10, 3, [8], "3 outputs are asked of a chunk of 2"),
        (10, 0, [0], "run 0 of a chunk has 0 tokens"),
        (60, 0, [10], "do not fit n_batch"),
    ],
)
def test_a_chunk_that_does_not_fit_its_view_is_refused(
    n_tokens: int, n_outputs: int, runs: list[int], message: str, chunk_cache: native.NativeCache
) -> None:
    block = chunk_cache.new_block()
    wanted = Chunk(runs, layers_for(chunk_cache, n_tokens), lambda layer: None)
    with pytest.raises(InvalidArgument, match=message):
        chunk_cache.decode_chunk(DecodeView([block], [1] * n_tokens, n_outputs), wanted)
    assert chunk_cache.blocks() == {block: 0}


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 7])
def test_even_chunks_are_all_of_the_prompt(n_ranks: int) -> None:
    for n in (n_ranks, 50, 51):
        assert checked(even(n, n_ranks), n, n_ranks)[0] - even(n, n_ranks)[-1] <= 1
    with pytest.raises(InvalidArgument):
        even(n_ranks - 1, n_ranks)


# -- devices ---------------------------------------------------------------------------------------------------

ON_DEVICES = """
import sys, threading
from pathlib import Path
import numpy as np
sys.path.append(sys.argv[3])
from ranks import Wires
from hogwild_local import Model, SharedCache
from hogwild_local.engine import native
from hogwild_local.engine.rpc import load_backend
from hogwild_local.runahead.helper import serve
from hogwild_local.runahead.leader import Group, Leader

path, servers, helper_has_device = Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[4] == "True"
tokens = [i * 7 % 200 for i in range(120)]
options = {"n_ctx": 400, "n_batch": 400, "type_k": "f32", "type_v": "f32"}
with Model(path, n_threads=1) as model, SharedCache(model, **options) as cache:
    wanted = cache.decode([([cache.block()], tokens)])[0]
load_backend(native)
wires = Wires(2)

class Native:
    rpc_load, gpus = staticmethod(native.rpc_load), staticmethod(native.gpus)
    def NativeModel(self, settings):
        assert settings["rpc_servers"] == [servers[0].encode()]
        return native.NativeModel(settings if helper_has_device else {**settings, "rpc_servers": []})

threading.Thread(target=serve, args=(wires.transport(0), Native()), daemon=True).start()
group = Group(wires.transport(1))
with Model(path, n_threads=1, rpc=servers, native=Leader(group)) as model, SharedCache(model, **options) as cache:
    has_device = [any(row[0].startswith("RPC") for row in rows) for _, rows in model._native.placements()]
    block = cache.block()
    logits = cache.decode([([block], tokens)])[0]
    print(has_device, len(group.traces), bool(np.abs(logits - wanted).max() <= 1e-3))
    def stop(layer):
        raise KeyError(layer)
    block, n = cache._native.new_block(), cache._native.layer_bytes(0, 12)
    memory = [np.zeros(n, dtype=np.uint8) for _ in range(cache._native.n_layers())]
    try:
        view = native.DecodeView([block], [1] * 12, 0)
        cache._native.decode_chunk(view, native.Chunk([4], memory, stop))
    except KeyError:
        again = cache.decode([([cache.block()], tokens)])[0]
        print(bool(np.array_equal(again, logits)))
"""


@needs_rpc
@pytest.mark.parametrize("has_device", [[True, False], [False, True], [True, True]])
def test_ranks_compute_on_a_device_and_beside_it(has_device: list[bool], tiny_path: Paths) -> None:
    with contextlib.ExitStack() as stack:
        # Servers are dealt out from the first rank on.
        servers = [stack.enter_context(rpc_server()).address for _ in range(1 + has_device[1])]
        tests = str(Path(__file__).parent)
        done = run_isolated(ON_DEVICES, tiny_path("llama"), ",".join(servers), tests, has_device[0])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{has_device} 2 True", "True"]


def test_progress_is_a_line_a_second(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from hogwild_local.cli import ranks

    seconds = iter([0.0, 0.4, 1.1, 1.9, 2.2])
    monkeypatch.setattr(ranks.time, "monotonic", lambda: next(seconds))
    progress = ranks.RanksProgress()
    for layer in range(4):
        progress(([layer + 3, layer], 28))
    assert capsys.readouterr().err.splitlines() == [
        "hogwild: prompt: rank 0 at 5, rank 1 at 2 of 28 layers",
        "hogwild: prompt: rank 0 at 7, rank 1 at 4 of 28 layers",
    ]
