"""Ranks on two machines: this one, and a network namespace with an ssh server that stands for another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from test_blocks import Paths

pytest.importorskip("mpi4py", reason="no MPI: install '.[runahead]'")

SCRIPT = Path(__file__).parent.parent / "scripts" / "second-machine"
PROMPT = "count the words " * 40


def beside_another(code: str, *args: object) -> list[str]:
    """The lines that the code prints; OTHER_HOST is in its environment."""
    command = [sys.executable, SCRIPT, sys.executable, "-P", "-c", SAID + code, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode == 77:
        pytest.skip(f"no second machine: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


SAID = """
import os, subprocess, sys, time
from pathlib import Path
from hogwild_local import Hogwild, SamplingParams
from hogwild_local.errors import RankLost
other = os.environ["OTHER_HOST"]
def said(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
name = said("ssh", other, "hostname").strip()
link = name + "h"
"""

RUN = """
def run(**ranks):
    with Hogwild(sys.argv[1], n_ctx=4000, n_threads=1, type_k="f32", type_v="f32", **ranks) as hogwild:
        sampling = SamplingParams(temperature=0)
        text = hogwild.generate(sys.argv[2], max_passes=10, seed=1, sampling=sampling).history
        traces = hogwild.ranks
    launcher = hogwild.model._native.place
    return text, traces, launcher and launcher._child.returncode
def received():
    return int(Path("/sys/class/net", link, "statistics/rx_bytes").read_text())
alone, *_ = run()
before = received()
together, ranks, code = run(runahead=4, hosts=other)
print(together == alone, [trace.rank for trace in ranks], received() - before > ranks[2].n_sent, code)
"""


def test_a_run_of_ranks_on_two_machines_is_that_of_one_process(tiny_path: Paths) -> None:
    assert beside_another(RUN, tiny_path("llama"), PROMPT) == ["True [0, 1, 2, 3] True 0"]


LOST = """
def ranks_there():
    pids = [Path("/proc", pid, "cmdline") for pid in said("ip", "netns", "pids", name).split()]
    return [pid for pid in pids if pid.exists() and pid.read_text().split("\\0")[:2] == [sys.executable, "-c"]]
with Hogwild(sys.argv[1], n_ctx=4000, n_threads=1, runahead=2, hosts=other) as hogwild:
    cache = hogwild._cache
    block = cache.block("prompt")
    cache.decode([([block], [1] * 100)])
    before = cache.read(block)
    print(len(ranks_there()))
    said("ip", "link", "set", link, "down")
    begin = time.monotonic()
    try:
        cache.decode([([block], [1] * 100)])
    except RankLost as error:
        print("rank 0 on " + name in str(error), time.monotonic() - begin < 10, cache.read(block) == before)
    while ranks_there() and time.monotonic() - begin < 20:
        time.sleep(0.1)
    print(len(ranks_there()))
while (n := subprocess.run(["pgrep", "-fc", "ssh.*" + other], stdout=subprocess.PIPE, text=True).stdout.strip()) != "0":
    if time.monotonic() - begin > 30:
        break
    time.sleep(0.1)
print(n)
"""


def test_a_machine_that_is_cut_off_is_an_error_and_its_ranks_end(tiny_path: Paths) -> None:
    assert beside_another(LOST, tiny_path("llama")) == ["1", "True True True", "0", "0"]


MODELS = """
from hogwild_local.errors import ModelError
path, another = sys.argv[1:]
for command in (["mount", "--bind", another, path], ["mount", "-t", "tmpfs", "none", str(Path(path).parent)]):
    said("ssh", other, *command)
    begin = time.monotonic()
    try:
        Hogwild(path, n_ctx=4000, n_threads=1, runahead=2, hosts=other)
    except ModelError as error:
        print(time.monotonic() - begin < 10, " ".join(str(error).split()))
"""


def test_a_model_file_that_differs_or_is_missing_there_is_told(tiny_path: Paths, tmp_path: Path) -> None:
    from models.tiny import write_tiny

    write_tiny(another := tmp_path / "another.gguf", "llama", seed=1)
    differs, missing = beside_another(MODELS, tiny_path("llama"), another)
    assert differs.startswith("True rank 0 has another model than the last rank: weights=")
    assert missing.startswith("True rank 0: cannot open model file")
