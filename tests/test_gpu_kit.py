"""scripts/gpu-figures: what is done in which time, what is read of it, and what is told."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from gpu_helper import GPUS
from kit import SCRIPTS, kit

# -- the budget ---------------------------------------------------------------------------------------------------


@pytest.fixture
def run_steps(tmp_path: Path) -> Callable[..., Any]:
    """run_steps(steps, minutes): the record of a run. A step is (name, shell command, options of Step). said: lines."""

    def run(steps: list[tuple[str, str, dict[str, Any]]], minutes: float = 1.0) -> Any:
        plan, readers = kit("plan"), kit("readers")
        record = kit("record").Record(tmp_path / "figures.json", "the key")
        runner = kit("runner").Runner(record, minutes, tmp_path, tmp_path, {}, " ".join, said.append)
        usual = {"least": 0.0, "most": 60.0, "read": readers.rows}
        runner.run(
            [plan.Step(name, **{**usual, "commands": (("sh", "-c", code),), **more}) for name, code, more in steps]
        )
        return record

    said: list[str] = []
    run.said = said  # type: ignore[attr-defined]
    return run


def outcomes(record: Any) -> dict[str, str]:
    return {name: result.status for name, result in record.steps.items()}


def test_a_step_that_fails_stops_only_those_that_need_it(run_steps: Callable[..., Any]) -> None:
    record = run_steps([("a", "echo because; exit 3", {}), ("b", "true", {"needs": ("a",)}), ("c", "true", {})])
    assert outcomes(record) == {"a": "failed", "b": "left out", "c": "done"}
    assert record.steps["a"].why == "exit code 3: because"
    assert record.steps["b"].why == "a: not done"


def test_of_a_build_the_first_error_is_told(run_steps: Callable[..., Any]) -> None:
    record = run_steps([("a", "echo 'a.cpp:1: error: no x'; echo 'a.cpp:2: error: no y'; echo failed; exit 1", {})])
    assert record.steps["a"].why == "exit code 1: a.cpp:1: error: no x"
    code = "echo 'CMake Error at a/CMakeLists.txt:13 (find_package):'; echo '  Could not find X'; echo failed; exit 1"
    record = run_steps([("b", code, {})])
    assert record.steps["b"].why == "exit code 1: CMake Error at a/CMakeLists.txt:13 (find_package): Could not find X"


def test_a_step_that_takes_too_long_is_ended_with_all_it_started_and_keeps_its_figures(
    run_steps: Callable[..., Any], tmp_path: Path
) -> None:
    code = "echo '{\"n\": 1}' > {out}; sh -c 'echo $$ > " + str(tmp_path / "pid") + "; sleep 60' & wait"
    begun = time.monotonic()
    record = run_steps([("a", code, {"most": 1.0}), ("b", "true", {})])
    assert time.monotonic() - begun < 30
    assert outcomes(record) == {"a": "cut off", "b": "done"}
    assert record.steps["a"].figures == {"n": 1}
    stat = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"  # it may wait for its new parent


def test_what_the_budget_has_no_time_for_is_left_out(run_steps: Callable[..., Any]) -> None:
    minutes = (kit("runner").RESERVE_S + 2) / 60
    record = run_steps([("a", "sleep 60", {}), ("b", "true", {"least": 0.1})], minutes)
    assert outcomes(record) == {"a": "cut off", "b": "left out"}
    assert record.steps["a"].why == "0 s were left"


def test_steps_in_the_background_run_beside_others_and_are_waited_for(
    run_steps: Callable[..., Any], tmp_path: Path
) -> None:
    meet = f"while [ ! -e {tmp_path}/met ]; do sleep 0.1; done"
    record = run_steps([
        ("model", meet, {"in_background": True}),
        ("build", f"touch {tmp_path}/met", {}),
        ("bench", "true", {"needs": ("build", "model")}),
    ])  # fmt: skip
    assert outcomes(record) == {"model": "done", "build": "done", "bench": "done"}


def test_a_step_that_would_fill_the_disk_is_left_out(run_steps: Callable[..., Any]) -> None:
    record = run_steps([("a", "true", {"n_bytes": 1e18})])
    assert outcomes(record) == {"a": "left out"}
    assert "--work" in record.steps["a"].why


def test_a_second_run_goes_on_where_the_first_one_was_ended(run_steps: Callable[..., Any], tmp_path: Path) -> None:
    count = f"echo x >> {tmp_path}/count"
    run_steps([("a", count, {}), ("b", "exit 1", {})])
    record = run_steps([("a", count, {}), ("b", "true", {})])
    assert outcomes(record) == {"a": "done", "b": "done"}
    assert (tmp_path / "count").read_text() == "x\n"


def test_what_an_earlier_run_measured_is_kept_where_there_is_no_time(run_steps: Callable[..., Any]) -> None:
    begun = ("a", "echo '{\"n\": 1}' > {out}; sleep 60", {"most": 1.0})
    run_steps([begun])
    record = run_steps([begun], minutes=0.0)
    assert outcomes(record) == {"a": "cut off"}
    assert record.steps["a"].figures == {"n": 1}


def test_a_command_that_is_not_there_is_a_failure(run_steps: Callable[..., Any]) -> None:
    record = run_steps([("a", "", {"commands": (("/none/nsys", "profile"), ("true",))})])
    assert outcomes(record) == {"a": "failed"}
    assert "No such file" in record.steps["a"].why


def test_a_step_in_anothers_place_is_there_where_that_one_told_nothing(run_steps: Callable[..., Any]) -> None:
    told, refused = "echo '{\"n\": 1}' > {out}", "echo ==ERROR== ERR_NVGPUCTRPERM; exit 1"
    record = run_steps([
        ("a", told, {}), ("b", told, {"instead_of": ("a",)}), ("c", refused, {}), ("d", told, {"instead_of": ("c",)}),
        ("e", told, {"instead_of": ("c", "d")}),
    ])  # fmt: skip
    assert outcomes(record) == {"a": "done", "c": "failed", "d": "done"}
    assert record.steps["c"].why == "exit code 1: ==ERROR== ERR_NVGPUCTRPERM"


def test_a_step_that_an_earlier_run_left_out_is_gone_when_another_tells_the_same(run_steps: Callable[..., Any]) -> None:
    told = "echo '{\"n\": 1}' > {out}"
    steps = [("a", told, {}), ("b", told, {"instead_of": ("a",)})]
    assert outcomes(run_steps(steps, minutes=0.0)) == {"a": "left out", "b": "left out"}
    assert outcomes(run_steps(steps)) == {"a": "done"}


def test_a_command_that_a_signal_ended_is_told_with_its_name(run_steps: Callable[..., Any]) -> None:
    record = run_steps([("a", "echo so far; kill -ABRT $$", {})])
    assert record.steps["a"].why == "SIGABRT: so far"


def test_what_was_set_for_a_step_stands_in_its_command(run_steps: Callable[..., Any]) -> None:
    record = run_steps([("a", "true", {"environment": {"GGML_VK_PERF_LOGGER": "1"}})])
    assert record.steps["a"].command == "GGML_VK_PERF_LOGGER=1 sh -c true"


def test_a_command_is_written_so_that_a_shell_can_read_it() -> None:
    shown = kit("main").shown
    assert shown(["/venv/bin/python", "a.py", "{out}", "-k", "not trace"]) == "python a.py FILE -k 'not trace'"
    assert shown(["/venv/bin/hogwild", "bench", "-m", "/w/8b.gguf", "--json", "{out}"]) == "hogwild bench -m 8b.gguf"


def test_of_a_long_step_it_is_told_how_far_it_is(
    run_steps: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit("runner"), "PROGRESS_S", 0.5)
    run_steps([("a", f"echo '[1/2] nvcc {'-x ' * 100} -c fattn.cu'; sleep 2", {})])
    assert any(re.search(r"s: \[1/2\] nvcc .* -c fattn\.cu$", line) for line in run_steps.said)  # type: ignore[attr-defined]
    assert max(map(len, run_steps.said)) < 120  # type: ignore[attr-defined]
    assert re.search(r"a \.\.\. \(\d+ s are left\)", run_steps.said[0])  # type: ignore[attr-defined]


def test_a_record_of_another_pack_does_not_count(run_steps: Callable[..., Any], tmp_path: Path) -> None:
    run_steps([("a", "true", {})])
    assert kit("record").Record(tmp_path / "figures.json", "the key").is_done("a")
    assert not kit("record").Record(tmp_path / "figures.json", "another key").is_done("a")


# -- what is read -------------------------------------------------------------------------------------------------

# As nsys, ncu and ggml print them. Older versions of nsys have a line for each grid, those of ncu other names of units.
NSYS = """Generating SQLite file x.sqlite from x.nsys-rep
Processing [x.sqlite] with [/opt/nvidia/nsight-systems/2025.3.2/host-linux-x64/reports/cuda_gpu_kern_sum.py]...

Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name
75.0,2400000,16,150000.0,150000.0,1,2,1.0,"void mul_mat_vec_q<(ggml_type)2, (int)4>(const void *, int)"
15.0,480000,5,100000.0,100000.0,1,2,1.0,flash_attn_ext
10.0,320000,3,100000.0,100000.0,1,2,1.0,flash_attn_ext

"""
NCU = """==PROF== Connected to process 7 (/usr/bin/python3.12)
==PROF== Profiling "mul_mat_vec_q" - 0: 0%....50%....100% - 1 pass
"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size","Device","CC",\
"Section Name","Metric Name","Metric Unit","Metric Value"
"0","7","python3.12","127.0.0.1","void mul_mat_vec_q<(ggml_type)2, 4>(int)","1","7","(32, 4, 1)","(64, 1, 1)",\
"0","9.0","Command line profiler metrics","gpu__time_duration.sum","ns","1,500"
==WARNING== a line of its own
"1","7","python3.12","127.0.0.1","flash_attn_ext","1","7","(32, 4, 1)","(64, 1, 1)",\
"0","9.0","Command line profiler metrics","gpu__time_duration.sum","ns","500"
"2","7","python3.12","127.0.0.1","void mul_mat_vec_q<(ggml_type)2, 4>(int)","1","7","(32, 4, 1)","(64, 1, 1)",\
"0","9.0","Command line profiler metrics","gpu__time_duration.sum","us","1.50"
"2","7","python3.12","127.0.0.1","void mul_mat_vec_q<(ggml_type)2, 4>(int)","1","7","(32, 4, 1)","(64, 1, 1)",\
"0","9.0","Command line profiler metrics","dram__bytes_read.sum","","n/a"
==PROF== Disconnected from process 7
"""
VULKAN = """----------------
Vulkan Timings:
ADD: 9 x 9 us = 81 us
----------------
Vulkan Timings:
MUL_MAT_VEC q4_0 m=64 n=1 k=64: 2 x 1.5 us = 3 us (3.5 GFLOPS/s)
FLASH_ATTN_EXT dst(16,1,4,1),  q(16,1,4,1),  k(16,64,2,1),  v(16,64,2,1),  m(64,1,1,1): 1 x 0.5 us = 0.5 us
Total time: 3.5 us.
"""


@pytest.mark.parametrize(
    ("reader", "printed", "file"),
    [("nsys_rows", NSYS, ""), ("ncu_rows", "", NCU), ("vulkan_rows", VULKAN, "")],
)
def test_profilers_tables_are_read(reader: str, printed: str, file: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(file)
    found = getattr(kit("profilers"), reader)(printed, tmp_path / "file")
    first, second = found["rows"]
    assert found["kernels"] == 2
    assert "mul_mat_vec" in first["kernel"].lower()
    assert second["kernel"].lower().startswith("flash_attn_ext")
    wanted = {"nsys_rows": (2, 300.0, 0.75), "ncu_rows": (2, 3.0, 6 / 7), "vulkan_rows": (2, 3.0, 6 / 7)}[reader]
    assert (first["calls"], first["us"], first["share"]) == pytest.approx(wanted)


def test_what_a_profiler_did_not_write_is_no_figure(tmp_path: Path) -> None:
    profilers = kit("profilers")
    for read in (profilers.nsys_rows, profilers.ncu_rows, profilers.vulkan_rows):
        assert read("Generating '/tmp/nsys-report.qdstrm'", tmp_path / "none") == {}


@pytest.mark.parametrize(("backend", "found", "tools"), [
    ("cuda", "nsys ncu", ["kernels-8b-nsys", "kernels-8b-ncu", "kernels-8b-nodes"]),
    ("cuda", "ncu", ["kernels-8b-ncu", "kernels-8b-nodes"]),
    ("cuda", "", ["kernels-8b-nodes"]),
    ("hip", "nsys", ["kernels-8b-nodes"]),
    ("vulkan", "", ["kernels-8b-timestamps", "kernels-8b-nodes"]),
])  # fmt: skip
def test_where_a_tool_may_be_refused_others_and_our_own_times_of_nodes_stand_in(
    backend: str, found: str, tools: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, profilers = kit("plan"), kit("profilers")
    monkeypatch.setattr(profilers, "find", lambda name: name if name in found.split() else None)
    target = plan.Target(Path("venv/bin/python"), Path("models"), backend, plan.FULL)
    steps = [step for step in plan.steps(target, []) if step.name.startswith("kernels-8b")]
    assert [step.name for step in steps] == tools
    assert steps[-1].commands[-1][-4:] == ("--profiler", "nodes", "--json", "{out}")
    assert [step.instead_of for step in steps] == [tuple(tools[:i]) for i in range(len(tools))]


def test_a_dry_run_does_the_same_steps_and_has_patience_with_each() -> None:
    # On Mesa's software driver, with other work on the machine, the tests were cut off after their 300 s.
    plan = kit("plan")
    full, dry = (
        {step.name.translate(str.maketrans("", "", "0123456789")): step.most for step in plan.steps(target, [])}
        for sizes in (plan.FULL, plan.DRY)
        for target in [plan.Target(Path("venv/bin/python"), Path("models"), "vulkan", sizes)]
    )
    assert dry.keys() == full.keys()
    assert all(dry[name] >= 4 * full[name] for name in full)


# -- tests that end their process ---------------------------------------------------------------------------------

TESTS = """import os
import pytest
def test_a(): pass
@pytest.mark.parametrize("word", ["x y"])
def test_b(word): os.abort()
def test_c(): assert False
@pytest.fixture
def broken(): raise OSError
def test_d(broken): pass
@pytest.mark.skip
def test_e(): pass
def test_f(): os._exit(3)
def test_g(): pass
"""


def resumed_tests(tmp_path: Path) -> list[str]:
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, str(SCRIPTS / "gpu_figures" / "resumed.py"), str(tmp_path / "journal")]
    return [*command, "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path / "test_it.py")]


def test_a_test_that_ends_the_process_takes_no_other_with_it(tmp_path: Path) -> None:
    done = subprocess.run(resumed_tests(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert kit("readers").tests("", tmp_path / "journal") == {
        "passed": 2, "crashed": 2, "failed": 2, "skipped": 1,
        "names": ["test_it.py::test_b[x y] (crashed)", "test_it.py::test_c (failed)", "test_it.py::test_d (failed)",
                  "test_it.py::test_f (crashed)"],
    }  # fmt: skip
    assert "test_it.py::test_b[x y]: the process ended here, by SIGABRT" in done.stdout
    assert "test_it.py::test_f: the process ended here, with exit code 3" in done.stdout


def test_tests_that_were_cut_off_are_counted_as_far_as_they_came(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text(
        "begun a.py::a\npassed a.py::a\nbegun a.py::b[x y]\nfailed a.py::b[x y]\nbegun a.py::c\n"
    )
    assert kit("readers").tests("", tmp_path / "journal") == {
        "passed": 1,
        "failed": 1,
        "names": ["a.py::b[x y] (failed)"],
    }


def test_that_no_test_was_found_is_a_failure(tmp_path: Path) -> None:
    done = subprocess.run([*resumed_tests(tmp_path), "-k", "nothing"], capture_output=True, check=False)
    assert done.returncode == kit("resumed").NO_TESTS


# -- all of it ----------------------------------------------------------------------------------------------------

OF_DEVICES = {"CUDA": "cuda", "ROCm": "hip", "Vulkan": "vulkan", "MTL": "metal"}  # as ggml names them
# What llama-cpp-python was built with: a backend that the tests load themselves is not there for hogwild's commands.
IS_BUILT = "HOGWILD_TEST_BACKEND" not in os.environ
BACKENDS = ["cpu", *(name for device, name in OF_DEVICES.items() if IS_BUILT and any(device in gpu for gpu in GPUS))]


def dry_run(folder: Path, *options: str, backend: str = "cpu") -> list[str]:
    return [sys.executable, str(SCRIPTS / "gpu-figures"), "--run", str(folder / "none"), "--dry-run", "--installed",
            "--backend", backend, "--out", str(folder / "out"), "--work", str(folder / "work"), *options]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_dry_run_does_every_step_and_writes_a_table_of_each(backend: str, tmp_path: Path) -> None:
    command = dry_run(tmp_path, "--minutes", "60", backend=backend)  # a software driver compiles for long
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "figures.json").read_text())
    wrong = {name: step["why"] for name, step in record["steps"].items() if step["status"] != "done"}
    if find_spec("mpi4py") is None:
        assert "no MPI" in wrong.pop("runahead-8b-64")
    assert wrong == {}
    page = (tmp_path / "out" / "figures.md").read_text()
    assert re.search(rf"^Backend {backend}, .* hogwild-local of commit \S+; 20", page, re.MULTILINE)
    for title in (
        "Passes of one token",
        "Prefill",
        "Memory",
        "What passes count",
        "One pass of four workers, 8b",
        "Correctness",
    ):
        assert f"\n### {title}" in page
    # Every row of figures ends with the number of a command.
    figures, commands = page.split("### The commands")
    numbers = {line.split("|")[1].strip() for line in commands.splitlines() if line.startswith("| ")} - {""}
    cells = [line.split("|")[-2].strip() for line in figures.splitlines() if line.startswith("| ")]
    assert {cell for cell in cells if cell != "from"} <= numbers
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["figures.json", "figures.md", "log.txt"]


def test_a_short_run_ends_in_order_with_what_it_had(tmp_path: Path) -> None:
    begun = time.monotonic()
    done = subprocess.run(dry_run(tmp_path, "--minutes", "0.25"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 60
    steps = json.loads((tmp_path / "out" / "figures.json").read_text())["steps"]
    status = [step["status"] for step in steps.values()]
    assert "done" in status
    assert status[-1] == "left out"
    assert "### The commands" in (tmp_path / "out" / "figures.md").read_text()


def test_a_run_that_is_ended_leaves_what_it_had_and_no_process(tmp_path: Path) -> None:
    run = subprocess.Popen(dry_run(tmp_path), stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    for line in run.stdout:
        if line.startswith("traces ..."):
            break
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    assert run.returncode == 130
    steps = json.loads((tmp_path / "out" / "figures.json").read_text())["steps"]
    assert steps["tests"]["status"] == "done"
    assert (steps["traces"]["status"], steps["traces"]["why"]) == ("cut off", "interrupted")
    left = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            left.append(path.read_bytes())
    assert not [command for command in left if str(tmp_path).encode() in command]
