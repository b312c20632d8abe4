"""Where memory is short, calls fail and the process lives: under limits of the address space, in control groups, with
very many blocks. In processes of their own, for what is tested here used to end them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from isolated import run_isolated

from hogwild_local.engine.native import float_rows, free_host_memory
from hogwild_local.errors import OutOfMemory

PathOf = Callable[..., Path]
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space and control groups are Linux's")

SETUP = """
import os, resource, sys
from pathlib import Path
from hogwild_local import Model, SharedCache, errors
from hogwild_local.engine.native import DecodeView
model = Model(sys.argv[1], n_threads=1)
def size():
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
def limit(n_bytes):
    resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))
"""


def output(code: str, *args: object) -> str:
    done = run_isolated(SETUP + code, *args)
    assert (done.returncode, done.stderr) == (0, ""), (done.returncode, done.stderr)
    return done.stdout.strip()


@linux
@pytest.mark.parametrize(("name", "attention"), [("llama", "fused"), ("llama", "composed"), ("gemma2", "ggml")])
def test_any_limit_of_the_address_space_is_success_or_out_of_memory(
    name: str, attention: str, tiny_path: PathOf
) -> None:
    code = """
from hogwild_local.engine import forks
def work():
    cache = SharedCache(model, n_ctx=512, n_batch=512, attention=sys.argv[2])
    a, b = cache.block(), cache.block()
    for n in (1, 33):
        cache.decode([([a, b], [1] * n), ([b, a], [2])], all_logits=True)
        a.append(b)

def outcome(extra):  # of a child: what it exits with, or minus the signal that killed it
    child = os.fork()
    if child == 0:
        code = 4
        forks._n_forks, forks._is_fork = 0, False  # with one thread nothing has stayed behind
        try:
            limit(size() + extra)
            work()
            code = 0
        except errors.OutOfMemory:
            code = 2
        except MemoryError:  # Python's own
            code = 3
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

print(*(outcome(n << 17) for n in range(0, 1000, 9)))
"""
    outcomes = set(output(code, tiny_path(name), attention).split())
    assert outcomes - {"3"} == {"0", "2"}


@linux
def test_a_view_of_very_many_blocks_needs_no_memory_for_nodes_that_are_not_made(tiny_path: PathOf) -> None:
    # 3 layers, 16 nodes a block that might be: 1.2 GB of schedulers before.
    code = """
cache = SharedCache(model, n_ctx=4096, n_batch=2048, attention="fused")
blocks = [cache.block() for _ in range(1200)]
cache._native.decode([DecodeView([block._use()], [1], 0) for block in blocks])
limit(size() + (600 << 20))
print(cache.decode([([*blocks, cache.block()], [1])]).shape[0])
"""
    assert output(code, tiny_path("llama")) == "1"


@linux
def test_graphs_that_nobody_needs_make_room_for_one_that_is_needed(tiny_path: PathOf) -> None:
    code = """
cache = SharedCache(model, n_ctx=8192, n_batch=8192)
blocks = [cache.block() for _ in range(16)]
ids = [block._use() for block in blocks]
def feed(n):
    cache._native.decode([DecodeView([block], [1] * n, n) for block in ids])
    for block in ids:
        cache._native.truncate(block, 0)
feed(1)
before = size()
feed(512)
buffers = size() - before
assert buffers > 60 << 20, buffers
limit(size() + buffers // 4)
feed(500)
print("fed")
"""
    assert output(code, tiny_path("llama")) == "fed"


@linux
def test_logits_beyond_memory_are_refused(tiny_path: PathOf) -> None:
    code = """
cache = SharedCache(model, n_ctx=8192, n_batch=8192)
block = cache.block()
cache.decode([([block], [1])])
limit(size() + (8 << 20))  # less than the rows themselves
for views in ([DecodeView([block._use()], [1] * 8000, 8000)], [DecodeView([block._use()], [1] * 8000, 8000, True)]):
    try:
        cache._native.decode(views)
    except errors.OutOfMemory as error:
        print(type(error).__name__)
print(len(block), cache.decode([([block], [1])]).shape[0])
"""
    assert output(code, tiny_path("llama")).split() == ["OutOfMemory", "OutOfMemory", "1", "1"]


def system(root: Path, groups: str, **files: object) -> int:
    """Free memory where 1,000 KiB are available; files: under sys/fs/cgroup, with __ for / and memory_ for memory."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text("MemTotal: 4000 kB\nMemFree: 10 kB\nMemAvailable: 1000 kB\n")
    (root / "proc" / "self" / "cgroup").write_text(groups)
    for name, value in files.items():
        path = root / "sys" / "fs" / "cgroup" / name.replace("__", "/").replace("memory_", "memory.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return free_host_memory(str(root))


def test_without_control_groups_memory_is_what_the_machine_has(tmp_path: Path) -> None:
    assert system(tmp_path / "none", "") == 1000 * 1024
    assert system(tmp_path / "unlimited", "0::/a", a__memory_max="max", a__memory_current=77) == 1000 * 1024
    assert system(tmp_path / "other", "3:cpu:/a\n", memory__memory_limit_in_bytes=5) == 1000 * 1024


@pytest.mark.parametrize(
    ("groups", "mount", "limit", "usage"),
    [("0::/a/b\n", "", "max", "current"), ("4:cpu,memory:/a/b\n", "memory__", "limit_in_bytes", "usage_in_bytes")],
    ids=["version 2", "version 1"],
)
def test_of_nested_control_groups_the_smallest_counts(
    groups: str, mount: str, limit: str, usage: str, tmp_path: Path
) -> None:
    def group(path: str, most: int, used: int) -> dict[str, int]:
        return {f"{mount}{path}memory_{limit}": most, f"{mount}{path}memory_{usage}": used}

    inner, outer, top = group("a__b__", 900, 100), group("a__", 1000, 700), group("", 5000, 4900)
    assert system(tmp_path / "inner", groups, **inner) == 800
    assert system(tmp_path / "outer", groups, **inner, **outer) == 300
    # As a container without a name space of its own sees it: its path is the host's, and its group the top one.
    assert system(tmp_path / "top", groups, **top) == 100
    assert system(tmp_path / "all", groups, **inner, **outer, **top) == 100
    assert system(tmp_path / "over", groups, **group("a__", 100, 300)) == 0
    assert system(tmp_path / "more", groups, **group("a__", 1 << 40, 0)) == 1000 * 1024


@pytest.mark.parametrize(("groups", "mount", "words"), [("0::/", "", ""), ("4:memory:/", "memory__", "total_")])
def test_pages_of_files_do_not_count_as_used(groups: str, mount: str, words: str, tmp_path: Path) -> None:
    # A model that is mapped fills a container's memory with pages that the kernel takes back.
    limit, usage = ("max", "current") if not mount else ("limit_in_bytes", "usage_in_bytes")
    stat = f"cache 0\n{words}inactive_file 300\n{words}active_file 200\nunevictable 3"
    files = {f"{mount}memory_{limit}": 1000, f"{mount}memory_{usage}": 600, f"{mount}memory_stat": stat}
    assert system(tmp_path, groups, **files) == 900


def test_more_rows_of_logits_than_the_machine_has_memory_for_are_refused() -> None:
    with pytest.raises(OutOfMemory, match="rows of logits"):
        float_rows(2**20, 2**20)
