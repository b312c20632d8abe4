"""A device that is not the CPU: ggml's RPC backend on loopback, with all layers there, and with half of them.

Each model that uses a server is loaded in a process of its own: ggml ends a process whose server dies.
"""

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from isolated import run_isolated
from rpc_helper import Server, needs_rpc, rpc_server

from hogwild_local import Model, SharedCache
from hogwild_local.engine.rpc import greet, parse_servers, short_address
from hogwild_local.errors import DeviceError, InvalidArgument, ModelError
from models.tiny import HYBRIDS

Path_of = Callable[..., Path]
isolated = partial(Model, isolate=True)
# Other orders of sums, and ggml's f16 tables; GELU, of gemma2 and grok, is such a table too (see test_equivalence.py).
F32_TOLERANCES = {"llama": 1e-3, "qwen3": 1e-3, "gemma2": 5e-3, "grok": 5e-3}
# With an f16 cache ggml rounds queries and attention weights to f16 as well (2^-11 each), which our kernel does not:
# 1 % of the largest logit is some 20 roundings.
F16_SHARE = 0.01


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with rpc_server() as running:
        yield running


# Lightning attention is many operations. Of half an arwkv7 llama.cpp's graph does not tell which of several tensors of
# one name goes to the other device: it is refused.
HYBRIDS_THERE = [
    (name, part)
    for name in HYBRIDS
    for part in ("all", "half")
    if name != "minimax-01" and (name, part) != ("arwkv7", "half")
]


def n_layers(model: Model) -> int:
    return int(model.metadata[f"{model.metadata['general.architecture']}.block_count"])


def story(cache: SharedCache, n_vocab: int) -> np.ndarray:
    """Two workers that see each other, more than 64 passes; steps that end; tokens taken back; blocks that must be
    moved. All logits."""
    rng = random.Random(7)
    rows = []

    def tokens(n: int) -> list[int]:
        return [rng.randrange(n_vocab) for _ in range(n)]

    prompt, a, b = (cache.block(name) for name in ("prompt", "a", "b"))
    rows.append(np.array(cache.decode([([prompt], tokens(60))])))
    for _ in range(5):
        rows.append(np.array(cache.decode([([prompt, b, a], tokens(2)), ([prompt, a, b], tokens(1))])))
    prompt.append(a)
    for _ in range(66):
        rows.append(np.array(cache.decode([([prompt, b, a], tokens(1)), ([prompt, a, b], tokens(1))])))
    prompt.append(b)
    a.truncate(3)
    fillers = [cache.block(f"filler {i}") for i in range(3)]
    for filler in fillers:
        rows.append(np.array(cache.decode([([prompt, filler], tokens(30))])))
    fillers[0].free()
    rows.append(np.array(cache.decode([([prompt, b, a], tokens(40))])))
    for _ in range(3):
        rows.append(np.array(cache.decode([([prompt, b, a], tokens(2)), ([prompt, a, b], tokens(1))])))
    for grown in (b, fillers[1], fillers[2], b):
        for block in (b, fillers[1], fillers[2]):
            block.truncate(min(len(block), 8))
        rows.append(np.array(cache.decode([([prompt, grown], tokens(cache.n_free - 8))])))
    return np.concatenate(rows)


def story_of_prompts(cache: SharedCache) -> np.ndarray:
    """Two prompts, one behind the other and beside a worker; then two workers. All logits."""
    prompt, turn = (cache.block(name, anchored=True) for name in ("prompt", "turn"))
    a, b = (cache.block(name) for name in ("a", "b"))
    rows = list(cache.decode([([prompt], [*range(150)])]))
    rows += cache.decode([([prompt, turn], [*range(30, 70)]), ([prompt, a], [7])])
    rows += cache.decode([([prompt, turn, a, b], [1, 2]), ([prompt, turn, b, a], [3])])
    return np.array(rows)


@needs_rpc
@pytest.mark.parametrize("part", ["all", "half"])
@pytest.mark.parametrize("cache_type", ["f32", "f16"])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "grok"])
def test_layers_on_a_server_give_the_logits_of_the_cpu(
    name: str, cache_type: str, part: str, tiny_path: Path_of, single: Callable[..., Model], server: Server
) -> None:
    model = single(name)
    n_gpu_layers = -1 if part == "all" else n_layers(model) // 2 + 1  # the last one is the output
    options = {"n_ctx": 264, "type_k": cache_type, "type_v": cache_type}
    with SharedCache(model, **options) as cache:
        wanted = story(cache, model.n_vocab)
    with (
        isolated(tiny_path(name), n_gpu_layers, 1, rpc=server.address) as remote,
        SharedCache(remote, **options) as cache,
    ):
        got = story(cache, remote.n_vocab)
        assert cache.n_moved > 0
        assert cache.n_mirrored > 0
        on_server = next(device for device in cache.devices if device.description == server.address)
    assert len(on_server.cache_layers) == (n_layers(model) if part == "all" else n_layers(model) // 2)
    tolerance = F32_TOLERANCES[name] if cache_type == "f32" else F16_SHARE * np.abs(wanted).max()
    assert np.isfinite(got).all()
    assert np.abs(got - wanted).max() <= tolerance


@needs_rpc
@pytest.mark.parametrize(("name", "part"), HYBRIDS_THERE)
def test_prompts_of_recurrent_layers_on_a_server_are_computed_there(
    name: str, part: str, tiny_path: Path_of, single: Callable[..., Model], server: Server
) -> None:
    model = single(name)
    n_gpu_layers = -1 if part == "all" else n_layers(model) // 2 + 1  # the last one is the output

    options = {"n_ctx": 512, "type_k": "f32", "type_v": "f32"}
    with SharedCache(model, **options) as cache:
        wanted = story_of_prompts(cache)
        assert cache.n_composed == 0
    with (
        isolated(tiny_path(name), n_gpu_layers, 1, rpc=server.address) as remote,
        SharedCache(remote, **options) as cache,
    ):
        got = story_of_prompts(cache)
        assert cache.n_composed > 0
    assert np.abs(got - wanted).max() <= 1e-3


@needs_rpc
@pytest.mark.parametrize("cache_type", ["q8_0", "q4_0"])
def test_a_quantized_cache_on_a_server_is_as_the_composed_attention_of_the_cpu(
    cache_type: str, tiny_path: Path_of, single: Callable[..., Model], server: Server
) -> None:
    # The very same operations on both sides: bit by bit but for the order in which a batch is cut.
    model = single("qwen3")
    options = {"n_ctx": 264, "type_k": cache_type, "type_v": cache_type, "attention": "ggml"}
    with SharedCache(model, **options) as cache:
        wanted = story(cache, model.n_vocab)
    with (
        isolated(tiny_path("qwen3"), n_threads=1, rpc=server.address) as remote,
        SharedCache(remote, **options) as cache,
    ):
        got = story(cache, remote.n_vocab)
    assert np.abs(got - wanted).max() <= 1e-3


@needs_rpc
def test_the_report_says_what_lies_where_and_which_kernel_attends(
    tiny_path: Path_of, single: Callable[..., Model], server: Server
) -> None:
    on_cpu = single("llama")
    with (
        isolated(tiny_path("llama"), 2, 1, rpc=server.address) as model,
        SharedCache(model, n_ctx=128) as cache,
        SharedCache(on_cpu, n_ctx=128) as all_here,
    ):
        (there, here), (cells_there, cells_here) = model.devices, cache.devices
        assert (there.description, here.name) == (server.address, "CPU")
        assert (there.layers, here.layers) == ((2,), (0, 1))
        assert there.has_rest  # the output
        assert here.has_rest  # the embeddings
        assert there.weight_bytes + here.weight_bytes == pytest.approx(on_cpu.devices[0].weight_bytes, rel=0.5)
        assert (cells_there.cache_layers, cells_here.cache_layers) == ((2,), (0, 1))
        assert (cells_there.fused_layers, cells_here.fused_layers) == ((), (0, 1))
        assert cells_there.cache_bytes + cells_here.cache_bytes == cache.n_bytes >= all_here.n_bytes
        assert "layers 2 and embeddings or output" in str(there)
        assert "ggml's attention" in str(cells_there)


@needs_rpc
def test_tensor_split_and_main_gpu_choose_among_two_servers(tiny_path: Path_of, server: Server) -> None:
    with rpc_server() as second:
        servers = [server.address, second.address]
        for options, holders in [
            ({"tensor_split": [1, 0]}, {server.address}),
            ({"tensor_split": [0, 1]}, {second.address}),
            ({"tensor_split": [1, 1]}, set(servers)),
            ({"split_mode": "none", "main_gpu": 1}, {second.address}),
        ]:
            with isolated(tiny_path("qwen3"), n_threads=1, rpc=servers, **options) as model:
                assert {device.description for device in model.devices if device.layers} == holders, options


@needs_rpc
def test_bench_measures_on_the_devices_that_it_is_given_and_names_them(
    tiny_path: Path_of, server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "figures.json"
    with rpc_server() as second:
        servers = f"{server.address},{second.address}"
        for options, holders in [
            ([], {server.address, second.address}),
            (["--tensor-split", "0,1"], {second.address}),
            (["--split-mode", "none", "--main-gpu", "1", "--n-gpu-layers", "2"], {second.address, "CPU"}),
        ]:
            command = ["bench", "-m", str(tiny_path("qwen3")), "--rpc", servers, *options, "-t", "1", "-w", "2"]
            command += ["-c", "32", "--rounds", "1", "--passes", "3", "--json", str(file)]
            done = run_isolated(f"from hogwild_local.cli.main import cli; cli({command!r})")
            assert done.returncode == 0, done.stderr
            report = json.loads(file.read_text())
            with_layers = [text for text in report["machine"]["devices"] if ": layers" in text]
            assert len(with_layers) == len(holders), options
            assert all(any(holder in text and text in done.stdout for text in with_layers) for holder in holders)
            assert [row["kind"] for row in report["rows"]] == ["prefill", "decode"]


@needs_rpc
@pytest.mark.parametrize(("n_gpu_layers", "n_devices"), [(4, 3), (-1, 2)])
def test_two_servers_give_the_logits_of_the_cpu(
    n_gpu_layers: int, n_devices: int, tiny_path: Path_of, single: Callable[..., Model], server: Server
) -> None:
    # With all layers on several devices llama.cpp's graph has four copies of what passes between them.
    model = single("gemma2")
    options = {"n_ctx": 264, "type_k": "f32", "type_v": "f32"}
    with SharedCache(model, **options) as cache:
        wanted = story(cache, model.n_vocab)
    with (
        rpc_server() as second,
        isolated(
            tiny_path("gemma2"), n_gpu_layers, 1, rpc=[server.address, second.address], tensor_split=[1, 1]
        ) as remote,
        SharedCache(remote, **options) as cache,
    ):
        assert len(cache.devices) == n_devices
        got = story(cache, remote.n_vocab)
    assert np.abs(got - wanted).max() <= F32_TOLERANCES["gemma2"]


@needs_rpc
@pytest.mark.parametrize(
    ("options", "error", "fault"),
    [
        ({"tensor_split": [1, 1, 1]}, InvalidArgument, "3 numbers"),
        ({"tensor_split": [0]}, InvalidArgument, "no device anything"),
        ({"tensor_split": [-1]}, InvalidArgument, "not a part"),
        ({"tensor_split": ["x"]}, InvalidArgument, "tensor_split"),
        ({"tensor_split": [1] * 17}, InvalidArgument, "at most 16"),
        ({"split_mode": "row"}, InvalidArgument, "split_mode"),
        ({"split_mode": "none", "main_gpu": 7}, ModelError, "main_gpu"),
        ({"main_gpu": -1}, InvalidArgument, "main_gpu"),
    ],
)
def test_a_wrong_choice_of_devices_is_named(
    options: dict[str, object], error: type[Exception], fault: str, tiny_path: Path_of, server: Server
) -> None:
    with pytest.raises(error, match=fault):
        isolated(tiny_path("llama"), n_threads=1, rpc=server.address, **options)


def test_a_split_without_devices_is_refused(tiny_path: Path_of) -> None:
    for options in ({"tensor_split": [1.0]}, {"split_mode": "none"}):
        with pytest.raises(InvalidArgument, match="besides the CPU"):
            Model(tiny_path("llama"), n_threads=1, **options)


@needs_rpc
def test_the_fused_kernel_is_refused_for_layers_that_lie_elsewhere(tiny_path: Path_of, server: Server) -> None:
    with (
        isolated(tiny_path("llama"), n_threads=1, rpc=server.address) as model,
        pytest.raises(InvalidArgument, match="fused attention reads CPU memory, and layer 0 lies on RPC0"),
    ):
        SharedCache(model, n_ctx=128, attention="fused")


@pytest.mark.parametrize(
    "text",
    ["host", "host:", ":1", "host:0", "host:65536", "host:x", "[::1]:5", "a b:5", "h:1,", "h:1,h:1", 7, b"h:1", ["h"]],
)
def test_what_is_no_server_is_refused_before_anything_is_loaded(text: object, tiny_path: Path_of) -> None:
    with pytest.raises(InvalidArgument, match="rpc"):
        Model(tiny_path("llama"), rpc=text)  # type: ignore[arg-type]


def test_servers_are_a_text_or_a_list() -> None:
    assert parse_servers("a:1,b.c:22") == parse_servers(["a:1", " b.c:22"]) == ["a:1", "b.c:22"]
    assert parse_servers("") == parse_servers(()) == []
    with pytest.raises(InvalidArgument, match="at most"):
        parse_servers([f"h:{port}" for port in range(1, 17)])


def test_a_long_name_of_a_server_becomes_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostbyname", {"a-machine.in-a-long.domain": "10.1.2.3"}.__getitem__)
    assert short_address("a-machine.in-a-long.domain:50052") == "10.1.2.3:50052"
    assert short_address("short.domain:50052") == "short.domain:50052"
    monkeypatch.undo()
    with pytest.raises(DeviceError, match="cannot be found"):
        short_address("a-machine-that-is-not-there.invalid:50052")


@needs_rpc
def test_a_server_that_is_not_there_is_an_error_and_no_abort(tiny_path: Path_of) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        with pytest.raises(DeviceError, match=r"cannot be reached.*hogwild rpc-server"):
            Model(tiny_path("llama"), rpc=f"127.0.0.1:{taken.getsockname()[1]}")


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (None, "does not answer"),
        (b"", "something else"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(40), "something else|version"),
        (b"\x1c" + bytes(7) + b"\x06" + bytes(27), "version 6"),
    ],
)
def test_what_is_no_rpc_server_of_our_version_is_told_from_one(answer: bytes | None, fault: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                if answer is None:
                    connection.recv(100)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(DeviceError, match=fault):
            greet(f"127.0.0.1:{listener.getsockname()[1]}", timeout=0.5)
        thread.join(5)


LOAD_BACKEND = """
from hogwild_local import errors
from hogwild_local.engine import native, rpc
try:
    rpc.load_backend(native)
except errors.DeviceError as error:
    print(error)
"""


def test_without_the_backend_it_is_said_what_to_install(tmp_path: Path) -> None:
    code = """
import llama_cpp, hogwild_local
llama_cpp.__file__ = sys.argv[1] + "/none/__init__.py"  # nothing lies beside these libraries
"""
    done = run_isolated(code + LOAD_BACKEND, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "GGML_RPC=ON" in done.stdout or done.stdout == ""  # empty: it is compiled in


def test_a_file_that_is_no_backend_is_named(tmp_path: Path) -> None:
    wrong = tmp_path / "libwrong.so"
    wrong.write_bytes(b"no library")
    done = run_isolated(LOAD_BACKEND, environment={"HOGWILD_RPC_BACKEND": str(wrong)})
    assert done.returncode == 0, done.stderr
    assert "libwrong.so" in done.stdout or done.stdout == ""
