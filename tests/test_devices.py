"""What the command line says and takes of devices and servers; no server is needed for this."""

from __future__ import annotations

import signal
import socket

import pytest
from click.testing import CliRunner
from fakes import FakeEngine
from rpc_helper import needs_rpc
from test_blocks import Paths

from hogwild_local import Model
from hogwild_local.cli.main import cli
from hogwild_local.engine.devices import Device, devices_of, merged
from hogwild_local.errors import InvalidArgument

MIB = 2**20


def invoke(*arguments: str, fake: FakeEngine | None = None):  # type: ignore[no-untyped-def]
    return CliRunner().invoke(cli, list(arguments), obj=fake.engine if fake else None)


def test_a_device_says_its_layers_as_ranges_its_bytes_and_its_kernel() -> None:
    weights = [("CPU", "chip", -1, MIB, False), ("CPU", "chip", 0, MIB, False)]
    weights += [("RPC0", "h:1", layer, 2 * MIB, False) for layer in (1, 2, 3, 5)]
    cells = [("CPU", "chip", 0, MIB, True), ("RPC0", "h:1", 1, MIB, False)]
    server, cpu = devices_of(weights, cells)
    assert str(server) == (
        "RPC0 (h:1): layers 1-3, 5: 8.0 MiB of weights; keys and values of layers 1: 1.0 MiB, ggml's attention"
    )
    assert str(cpu) == (
        "CPU (chip): layers 0 and embeddings or output: 2.0 MiB of weights; keys and values of layers 0: 1.0 MiB, "
        "fused attention"
    )
    assert merged(devices_of(weights), devices_of((), cells)) == [server, cpu]
    assert str(Device("X", "y")) == "X (y): nothing"


def test_options_of_devices_reach_the_engine() -> None:
    fake = FakeEngine()
    result = invoke(
        "run", "-m", "m.gguf", "-n", "1", "--rpc", "a:1,b:2", "--tensor-split", "3,1", "--split-mode", "none",
        "--main-gpu", "1", "P", fake=fake,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    wanted = {"rpc": "a:1,b:2", "tensor_split": (3.0, 1.0), "split_mode": "none", "main_gpu": 1, "n_gpu_layers": None}
    assert {name: fake.model_arguments[name] for name in wanted} == wanted


def test_what_lies_where_is_said_if_it_is_not_the_cpu_or_somebody_asks() -> None:
    for name, options, is_said in (("RPC0", [], True), ("CPU", [], False), ("CPU", ["-v"], True)):
        fake = FakeEngine()
        fake.model.devices = [Device(name, "a:1", (0,), False, MIB)]
        result = invoke("run", "-m", "m.gguf", "-n", "1", *options, "P", fake=fake)
        assert (f"hogwild: {name} (a:1): layers 0: 1.0 MiB of weights" in result.stderr) is is_said, options


@pytest.mark.parametrize(
    ("arguments", "fault", "code"),
    [
        (["run", "-m", "m.gguf", "--tensor-split", "a,b", "P"], "--tensor-split", 2),
        (["run", "-m", "m.gguf", "--rpc", "nonsense", "P"], "host:port", 2),
        (["rpc-server", "--port", "0"], "--port", 2),
        (["rpc-server", "--threads", "0"], "--threads", 2),
    ],
)
def test_a_wrong_option_is_named(arguments: list[str], fault: str, code: int) -> None:
    result = invoke(*arguments)
    assert (result.exit_code, fault in result.stderr) == (code, True), result.stderr


@needs_rpc
def test_a_server_that_cannot_start_says_why() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = invoke("rpc-server", "--port", port)
        assert (result.exit_code, "cannot be bound" in result.stderr) == (1, True)
    result = invoke("rpc-server", "--port", port, "--host", "localhost")
    assert (result.exit_code, "IPv4" in result.stderr) == (2, True)
    result = invoke("rpc-server", "--port", port, "--device", "none such")
    assert (result.exit_code, "there is no device 'none such'" in result.stderr) == (2, True)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@needs_rpc
def test_a_server_warns_where_others_can_reach_it() -> None:
    result = invoke("rpc-server", "--port", "50999", "--host", "0.0.0.0", "--device", "none such")
    assert "no authentication" in result.stderr
    result = invoke("rpc-server", "--port", "50999", "--device", "none such")
    assert "no authentication" not in result.stderr


def test_the_devices_of_this_machine_are_listed() -> None:
    result = invoke("rpc-server", "--list-devices")
    assert result.exit_code == 0
    assert "CPU: " in result.stdout


@pytest.mark.parametrize(
    ("device", "message"),
    [("none such", "no device 'none such'; this machine has"), (["CPU"], "'CPU' is no GPU"), (7, "must be name,...")],
)
def test_a_device_that_is_no_gpu_of_this_machine_is_refused(device: object, message: str, tiny_path: Paths) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Model(tiny_path("llama"), device=device)  # type: ignore[arg-type]
