"""Ranks that an MPI starts: what they answer, and what is told where one dies, or cannot be had."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pytest
from ranks import rounding
from rpc_helper import needs_rpc, rpc_server
from test_blocks import Load, Paths, probe, tokens_of

from hogwild_local import Hogwild, SamplingParams, SharedCache, __version__
from hogwild_local.engine.protocols import CacheLike
from hogwild_local.errors import EngineDied, InvalidArgument, RankLost, RunaheadError
from hogwild_local.runahead.launch import LAUNCHERS, find_mpiexec, mpi_command
from hogwild_local.runahead.ranked import RankedCache, started
from hogwild_local.runahead.routes import Method

pytest.importorskip("mpi4py", reason="no MPI: install '.[runahead]'")

MOST_S = 10.0
F32 = {"type_k": "f32", "type_v": "f32"}
GREEDY = SamplingParams(temperature=0)
COMMAND = [sys.executable, "-P", "-c", "from hogwild_local.cli.main import main; main()"]
BIG = {"n_ctx": 4000, "n_batch": 512, "type_k": "f16", "type_v": "f16", "attention": "auto"}


def processes(of: int) -> list[int]:
    """All that descend from this one."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [of]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def ranks_of(mpiexec: int) -> list[int]:
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in processes(mpiexec)}
    return [pid for pid, command in commands.items() if command[:2] == [sys.executable, "-c"]]


def gone(pids: Collection[int]) -> bool:
    """Whether all have ended, or end within seconds."""
    end = time.monotonic() + MOST_S
    while any(Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text() for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_ranks_of_an_mpi_give_the_logits_of_a_single_process(tiny_path: Paths, single: Load) -> None:
    tokens = tokens_of(single("gemma2"), 200)
    with SharedCache(single("gemma2"), n_ctx=400, n_batch=400, **F32) as cache:
        block = cache.block()
        wanted = [cache.decode([([block], tokens)])[0], probe(cache, block)]
    engine = started(3)
    with engine.model(tiny_path("gemma2"), n_threads=1) as model:  # type: ignore[attr-defined]
        pids = processes(model.pid)
        cache = engine.cache(model, **(BIG | F32))
        assert isinstance(cache, RankedCache)
        block = cache.block()
        logits = cache.decode([([block], tokens)])[0]
        assert [trace.n_tokens for trace in cache.ranks()] == [67, 67, 66]
        assert np.abs(logits - wanted[0]).max() <= rounding("gemma2", wanted[0])
        assert np.abs(probe(cache, block) - wanted[1]).max() <= rounding("gemma2", wanted[1])
    assert len(pids) >= 3
    assert gone([model.pid, *pids])


def test_a_run_is_that_of_a_single_process(tiny_path: Paths) -> None:
    def run(**options: int) -> tuple[str, str | None]:
        with Hogwild(tiny_path("llama"), n_ctx=4000, n_threads=1, **options) as hogwild:  # type: ignore[arg-type]
            result = hogwild.generate("count the words " * 20, max_passes=10, seed=1, reply=False, sampling=GREEDY)
        return result.history, result.answer

    assert run(runahead=2) == run()


@pytest.mark.parametrize("launcher", [False, True])
def test_the_command_line_starts_ranks_or_is_started_as_one(launcher: bool, tiny_path: Paths, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("count the words " * 20)
    options = [
        "-m",
        str(tiny_path("llama")),
        "-f",
        str(prompt),
        "-c",
        "4000",
        "-t",
        "1",
        "-n",
        "4",
        "--seed",
        "1",
        "--json",
    ]

    def events(*before: str, ranks: Sequence[str] = ()) -> list[dict[str, object]]:
        done = subprocess.run(
            [*before, *COMMAND, "run", *options, *ranks], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        return [row for row in rows if row["event"] in ("token", "answer")]

    wanted = events()
    assert wanted
    assert (events(find_mpiexec(), "-n", "2") if launcher else events(ranks=["--runahead", "2"])) == wanted


@needs_rpc
def test_each_rank_has_a_server_of_its_own(tiny_path: Paths) -> None:
    with (
        rpc_server() as first,
        rpc_server() as second,
        Hogwild(
            tiny_path("llama"), n_ctx=4000, n_threads=1, runahead=2, rpc=[first.address, second.address]
        ) as hogwild,
    ):
        hogwild.generate("count the words " * 20, max_passes=2, seed=1)
        assert len(hogwild.ranks) == 2
        of_ranks = [devices for _, devices in hogwild.devices_of_ranks]
    for devices, server in zip(of_ranks, (first, second), strict=True):
        assert [device.description for device in devices if device.layers] == [server.address]


def prefill_again_and_again(cache: CacheLike, tokens: list[int]) -> None:
    block = cache.block("prompt")
    for _ in range(1000):
        cache.decode([([block], tokens)])
        block.clear()


@pytest.mark.parametrize("which", [0, 1])
def test_the_death_of_a_rank_is_an_error_at_once(which: int, tiny_path: Paths, single: Load) -> None:
    engine = started(2)
    with engine.model(tiny_path("llama"), n_threads=1) as model:  # type: ignore[attr-defined]
        pids = [model.pid, *processes(model.pid)]
        cache = engine.cache(model, **BIG)
        ranks = ranks_of(model.pid)
        assert len(ranks) == 2
        os.kill(ranks[which], signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises((EngineDied, RunaheadError), match=r"Killed|died"):
            prefill_again_and_again(cache, tokens_of(single("llama"), 300))
        assert time.monotonic() - start < MOST_S
    assert gone(pids)


def test_ranks_end_with_the_process_that_wants_them(tiny_path: Paths) -> None:
    code = """
import sys, time
from hogwild_local.runahead.ranked import started
model = started(2).model(sys.argv[1], n_threads=1)
print(model.pid, flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-P", "-c", code, str(tiny_path("llama"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as user:
        try:
            assert user.stdout is not None
            mpiexec = int(user.stdout.readline())
            pids = [mpiexec, *processes(mpiexec)]
            assert len(pids) >= 3
        finally:
            user.kill()
    assert gone(pids)


def test_a_rank_that_hangs_is_lost_and_the_last_one_keeps_its_cells(tiny_path: Paths, single: Load) -> None:
    engine = started(2)
    tokens = tokens_of(single("llama"), 100)
    with engine.model(tiny_path("llama"), n_threads=1) as model:  # type: ignore[attr-defined]
        pids = [model.pid, *processes(model.pid)]
        cache = engine.cache(model, **BIG)
        block = cache.block("prompt")
        cache.decode([([block], tokens)])
        before = cache.read(block)  # type: ignore[attr-defined]
        helper = next(pid for pid in ranks_of(model.pid) if rank_in_mpi(pid) == 0)
        os.kill(helper, signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(RankLost, match=r"rank 0 on \S+ has died, or cannot be reached"):
            cache.decode([([block], tokens)])
        assert time.monotonic() - start < MOST_S
        assert cache.read(block) == before  # type: ignore[attr-defined]
        with pytest.raises(RankLost):
            cache.decode([([block], tokens)])
    assert gone(pids)


def rank_in_mpi(pid: int) -> int:
    lines = dict(line.partition("=")[::2] for line in Path(f"/proc/{pid}/environ").read_text().split("\0"))
    return int(lines["PMI_RANK" if "PMI_RANK" in lines else "OMPI_COMM_WORLD_RANK"])


@pytest.mark.parametrize("method", ["runahead", "all-gather"])
@pytest.mark.parametrize("n_ranks", [2, 3])
def test_a_prompt_that_is_cancelled_leaves_the_last_ranks_cells_and_the_next_one_is_computed(
    n_ranks: int, method: Method, tiny_path: Paths, single: Load
) -> None:
    engine = started(n_ranks)
    tokens = tokens_of(single("llama"), 100)
    with engine.model(tiny_path("llama"), n_threads=1) as model:  # type: ignore[attr-defined]
        cache = engine.cache(model, **BIG)
        assert isinstance(cache, RankedCache)
        cache.method(method)
        block, seen = cache.block("prompt"), list[tuple[list[int], int]]()
        logits = cache.decode([([block], tokens)])
        before = cache.read(block)

        def stop(progress: tuple[list[int], int]) -> None:
            seen.append(progress)
            raise KeyError("enough")

        cache.watch(stop)
        with pytest.raises(KeyError, match="enough"):
            cache.decode([([block], tokens)])
        assert [(len(layers), n_layers) for layers, n_layers in seen] == [(n_ranks, 3)]
        assert cache.read(block) == before
        cache.watch(None)
        for _ in range(2):
            assert np.array_equal(cache.decode([([cache.block("again")], tokens)]), logits)
            assert len(cache.ranks()) == n_ranks


def test_what_a_rank_raises_within_a_prompt_is_raised_by_all() -> None:
    code = """
import os
from hogwild_local.errors import OutOfMemory
from hogwild_local.runahead.mpi import MpiTransport
import numpy as np
transport = MpiTransport(3)
if transport.rank == 0:
    transport.fail(OutOfMemory("no memory for 7 tokens"))
    transport.outlast(2)
else:
    try:
        transport.receive(0, 5, np.zeros(3, dtype=np.uint8)).wait()
    except OutOfMemory as error:
        os.write(1, f"{transport.rank} {error}\\n".encode())
"""
    command, environment = mpi_command(find_mpiexec(), 3, code), {**LAUNCHERS, **os.environ}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    said = sorted(line for line in done.stdout.splitlines() if "no memory" in line)
    assert [line[0] for line in said] == ["1", "2"], done.stdout + done.stderr
    assert all("rank 0 on " in line and "no memory for 7 tokens" in line for line in said)


def test_a_prompt_that_a_rank_gives_up_is_known_to_all_and_its_messages_meet_their_receivers() -> None:
    code = """
import os, time
from hogwild_local.errors import Cancelled
from hogwild_local.runahead.mpi import MpiTransport
import numpy as np
transport, nothing, data = MpiTransport(3), np.zeros(0, dtype=np.uint8), np.arange(3, dtype=np.uint8)
said = ""
if transport.rank == 0:
    transport.give_up(7)
    for rank in (1, 2):
        for message in (nothing, nothing, data):
            transport.send(rank, 5, message).settle()
else:
    into = np.zeros(3, dtype=np.uint8)
    receives = [transport.receive(0, 5, into) for _ in range(3)]
    try:
        receives[0].wait()
    except Cancelled as error:
        said = str(error)
    receives[1].settle()
    receives[2].wait()
    end = time.monotonic() + 10
    while transport.given_up < 7 and time.monotonic() < end:
        time.sleep(0.01)
    os.write(1, f"{transport.rank} {transport.given_up} {into.tolist()} {said}\\n".encode())
transport.end()
"""
    command, environment = mpi_command(find_mpiexec(), 3, code), {**LAUNCHERS, **os.environ}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    wanted = [f"{rank} 7 [0, 1, 2] another rank has given up this prompt" for rank in (1, 2)]
    assert sorted(line for line in done.stdout.splitlines() if line) == wanted, done.stdout + done.stderr


# -- ranks that cannot be had ----------------------------------------------------------------------------------


def test_an_mpi_that_is_missing_is_named(tiny_path: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOGWILD_MPIEXEC", "/no/mpiexec")
    with pytest.raises(RunaheadError, match=r"/no/mpiexec is missing; install one with.*\[runahead\]"):
        Hogwild(tiny_path("llama"), n_ctx=2000, runahead=2)


def test_an_mpi4py_that_is_missing_is_named(tiny_path: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(RunaheadError, match=r"mpi4py is missing; install one with.*\[runahead\]"):
        Hogwild(tiny_path("llama"), n_ctx=2000, runahead=2)


def test_a_launcher_that_fails_says_why(tiny_path: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "mpiexec"
    broken.write_text("#!/bin/sh\necho there are no slots >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("HOGWILD_MPIEXEC", str(broken))
    with pytest.raises(RunaheadError, match=r"exit code 3.*there are no slots"):
        Hogwild(tiny_path("llama"), n_ctx=2000, runahead=2)


def test_a_launcher_of_another_mpi_is_told(tiny_path: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "mpiexec"  # starts both, and neither knows of the other
    other.write_text('#!/bin/sh\nshift 2\n"$@" &\n"$@"\nexit 1\n')
    other.chmod(0o755)
    monkeypatch.setenv("HOGWILD_MPIEXEC", str(other))
    with pytest.raises(RunaheadError, match=r"started 2 ranks, of which MPI knows 1: .* \(.*M.*\).*HOGWILD_MPIEXEC"):
        Hogwild(tiny_path("llama"), n_ctx=2000, runahead=2)


def test_a_host_that_cannot_be_reached_is_named(
    tiny_path: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = tmp_path / "ssh"  # this machine may have none, and names are looked up elsewhere
    ssh.write_text('#!/bin/sh\necho "$@" >>"${0}.log"\necho could not resolve hostname >&2\nexit 255\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    start = time.monotonic()
    with pytest.raises(RunaheadError, match=r"nowhere \(could not resolve hostname\)"):
        Hogwild(tiny_path("llama"), n_ctx=2000, runahead=2, hosts="nowhere")
    assert time.monotonic() - start < MOST_S
    assert "ConnectTimeout" in (tmp_path / "ssh.log").read_text()


def test_a_host_with_other_packages_is_refused(
    tiny_path: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\necho Welcome\necho 127.0.0.1 0.0.1 0.3.36\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(RunaheadError, match=rf"old must have the same .*hogwild-local 0.0.1 there, {__version__} here"):
        Hogwild(tiny_path("llama"), n_ctx=2000, runahead=2, hosts="old")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hosts": "a"}, "hosts are those of several ranks"),
        ({"hosts": 5, "runahead": 2}, "hosts must be host,... or a list of such texts, not 5"),
        ({"runahead": 2, "isolate": False}, "processes of their own"),
        ({"runahead": 2, "rpc": "nonsense"}, "host:port"),
        ({"runahead": 0}, "runahead"),
    ],
)
def test_what_does_not_go_with_ranks_is_refused(options: dict[str, object], message: str, tiny_path: Paths) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Hogwild(tiny_path("llama"), n_ctx=2000, **options)  # type: ignore[arg-type]
