"""scripts/sanitize: which reports count."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "sanitize"

RACE = """==================
WARNING: ThreadSanitizer: data race (pid=7)
  Write of size 4 at 0x7b04 by thread T1:
    #0 {frame} (libx.so+0x12)
SUMMARY: ThreadSanitizer: data race
==================
"""
OVERFLOW = """=================================================================
==7==ERROR: AddressSanitizer: heap-buffer-overflow on address 0x60
    #0 0x7f12 in memcpy
    #1 0x7f34 in {frame}
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    loader = SourceFileLoader("sanitize", str(SCRIPT))
    spec = spec_from_loader("sanitize", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def stage(script: ModuleType, tmp_path: Path) -> Path:
    script.stage_begin(tmp_path)
    return tmp_path


@pytest.mark.parametrize("report", [RACE, OVERFLOW])
@pytest.mark.parametrize(
    ("frame", "counts"),
    [
        ("hw::Cache::decode(hw_view const*) /home/me/hogwild/cpp/engine/cache.cpp:12", True),
        ("attn_run(AttnPlan&) ../../cpp/kernel/plan.cpp:329", True),
        ("llama_decode /home/me/llama.cpp/src/llama-context.cpp:12", False),
        ("gomp_team_barrier_wait_end", False),
        ("_PyEval_EvalFrameDefault Python/ceval.c:1", False),
    ],
)
def test_a_report_counts_if_a_frame_is_of_cpp(script: ModuleType, report: str, frame: str, counts: bool) -> None:
    assert len(list(script.ours(report.format(frame=frame)))) == counts


def test_lines_that_are_no_report_do_not_count(script: ModuleType) -> None:
    text = "==7==WARNING: AddressSanitizer failed to allocate 0x10 bytes in cpp/base/memory.cpp:1\n"
    assert list(script.ours(text)) == list(script.ours("")) == []


def test_what_ubsan_says_counts(script: ModuleType) -> None:
    text = "/home/me/hogwild/cpp/cache/pass.cpp:71:9: runtime error: signed integer overflow\n    #0 0x1 in hw::f\n"
    assert list(script.ours(text)) == [text]


FAULTS = {
    "overflow": ("address", 'extern "C" int fault(int n) { return n + 2147483647; }'),
    "out of bounds": (
        "address",
        'extern "C" int fault(int n) { int* p = new int[4]; return p[3 + n] + (delete[] p, 0); }',
    ),
    "race": (
        "thread",
        """#include <thread>
        int n_calls = 0;
        extern "C" int fault(int n) {
            std::thread a([] { n_calls++; }), b([] { n_calls++; });
            a.join();
            b.join();
            return n;
        }""",
    ),
}


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_each_kind_is_reported(script: ModuleType, fault: str, stage: Path) -> None:
    kind, code = FAULTS[fault]
    source, library = stage / "cpp" / "base" / "fault.cpp", stage / "fault.so"
    source.parent.mkdir(parents=True)
    source.write_text(code)
    flags = ["-shared", "-fPIC", "-g", "-O1", f"-fsanitize={script.KINDS[kind]}", "-pthread"]
    subprocess.run(["g++", *flags, source, "-o", library], check=True)
    (stage / "sitecustomize.py").write_text(script.SITE)
    reports = stage / "reports"
    reports.mkdir()
    call = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).fault(1)"
    environment = script.environment(kind, stage, reports)
    subprocess.run([sys.executable, "-c", call, library], env=environment, check=False, capture_output=True)
    texts = [file.read_text() for file in reports.iterdir()]
    assert {len(list(script.ours(text))) for text in texts} == {1}, texts


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
@pytest.mark.parametrize("kind", ["address", "thread"])
def test_a_shell_runs_what_it_is_told(script: ModuleType, kind: str, stage: Path) -> None:
    call = [*script.without_random_addresses(), "sh", "-c", "echo told"]
    environment = script.environment(kind, stage, stage)
    done = subprocess.run(call, env=environment, check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("told\n", "")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
@pytest.mark.parametrize("kind", ["address", "thread"])
def test_a_process_that_crashes_does_not_end_well(script: ModuleType, kind: str, stage: Path) -> None:
    call = [sys.executable, "-c", "import ctypes; ctypes.string_at(0)"]
    environment = script.environment(kind, stage, stage)
    assert subprocess.run(call, env=environment, check=False, capture_output=True).returncode != 0


def test_each_report_is_judged_alone(script: ModuleType) -> None:
    ours, foreign = RACE.format(frame="f cpp/kernel/plan.cpp:1"), RACE.format(frame="g")
    assert len(list(script.ours(foreign + ours + foreign + ours))) == 2


def test_what_is_left_out_exists(script: ModuleType) -> None:
    tests = SCRIPT.parent.parent / "tests"
    names = {*script.LEFT_OUT, *(f"test_{name}.py" for name in script.QUICK)}
    assert [name for name in names if not (tests / name).exists()] == []
    for test in script.ALSO_LEFT_OUT:
        file, name = test.split("[")[0].split("::")
        assert f"def {name}(" in (tests / file).read_text(), test


def test_what_is_not_reported_is_named_with_its_reason() -> None:
    blocks = (SCRIPT.parent / "sanitize-thread.supp").read_text().strip().split("\n\n")[1:]
    assert blocks
    assert all([line.startswith("#") for line in block.splitlines()] == [True] * block.count("\n") + [False]
               for block in blocks)  # fmt: skip
