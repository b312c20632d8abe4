"""Where ranks run, in which order, and what each gets of its machine: cores while they compute a prompt together, and
all of them when the others wait."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from isolated import run_isolated
from test_runahead import ranks
from test_thread_choice import libgomp

from hogwild_local import Model
from hogwild_local.engine import native
from hogwild_local.errors import InvalidArgument
from hogwild_local.runahead import place
from hogwild_local.runahead.launch import mpi_command, slots_of
from hogwild_local.runahead.place import Place, chain, here, n_sharing, own_settings

Paths = Callable[..., Path]


def given(**settings: object) -> dict[str, object]:
    return {"path": b"model.gguf", "n_threads": 1, "rpc_servers": [], "devices": None} | settings


def no_gpus() -> list[str]:
    return []


def places(*of_ranks: tuple[str, set[int]]) -> list[Place]:
    return [Place(machine, machine, frozenset(cpus)) for machine, cpus in of_ranks]


@pytest.mark.parametrize(
    ("given", "n"),
    [
        ([("a", {0, 1, 2, 3})], 1),
        ([("a", {0, 1, 2, 3}), ("a", {0, 1, 2, 3})], 2),
        ([("a", {0, 1}), ("a", {2, 3})], 1),  # a launcher gave each its own
        ([("a", {0, 1}), ("b", {0, 1}), ("a", {0, 1}), ("a", {1, 2})], 3),
    ],
)
def test_cores_are_shared_by_ranks_of_one_machine_that_may_use_them(given: list[tuple[str, set[int]]], n: int) -> None:
    assert n_sharing(places(*given), 0) == n


@pytest.mark.parametrize(
    ("machines", "last", "order"),
    [("aab", 2, [0, 1, 2]), ("bab", 1, [0, 2, 1]), ("abab", 3, [0, 2, 1, 3]), ("aaa", 0, [1, 2, 0]), ("a", 0, [0])],
)
def test_neighbours_in_the_chain_are_on_one_machine_and_the_last_rank_is_the_last(
    machines: str, last: int, order: list[int]
) -> None:
    assert chain(places(*((machine, {0}) for machine in machines)), last) == order


def test_ranks_are_dealt_out_to_hosts_and_the_last_one_is_here() -> None:
    assert slots_of(4, ["a", "b"], "here") == ["a:2", "b:1", "here:1"]
    assert slots_of(2, ["a"], "here") == ["a:1", "here:1"]
    assert slots_of(4, ["a", "a", "here"], "here") == ["a:2", "here:2"]


def test_all_ranks_have_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOGWILD_RPC_BACKEND", "some 'where'")
    monkeypatch.setenv("HOME", "not this")
    command = mpi_command("mpiexec", 2, "print(os.environ)", ["a:1", "here:1"])
    assert command[:5] == ["mpiexec", "-host", "a:1,here:1", "-n", "2"]
    done = subprocess.run(command[5:], env={"HOME": "mine"}, capture_output=True, text=True, check=True)
    assert "some 'where'" in done.stdout
    assert "not this" not in done.stdout


def test_ranks_of_this_process_are_on_one_machine() -> None:
    assert n_sharing([here(), here()], 1) == 2


@pytest.mark.parametrize(
    ("n_cores", "n_useful", "n_ranks", "share"), [(8, 8, 2, 4), (8, 8, 3, 2), (2, 2, 4, 1), (8, 3, 2, 3), (8, 1, 2, 1)]
)
def test_a_rank_has_its_share_of_the_cores_for_its_part_of_a_prompt(
    n_cores: int, n_useful: int, n_ranks: int, share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "n_cores", lambda: n_cores)
    monkeypatch.setattr(place, "default_threads", lambda path: n_useful)
    settings = given(n_threads=None)
    own = own_settings(settings, [here()] * n_ranks, 0, no_gpus)
    assert own == settings | {"n_threads_chunk": share, "devices": []}


def test_threads_that_the_user_names_are_those_of_each_rank() -> None:
    assert own_settings(given(n_threads=3), [here(), here()], 0, no_gpus) == given(n_threads=3) | {"devices": []}


@pytest.mark.parametrize(
    ("gpus", "dealt"),
    [
        ([], ["", "", ""]),
        (["A"], ["A", "A", "A"]),
        (["A", "B"], ["A", "B", "A"]),
        (["A", "B", "C"], ["A", "B", "C"]),
        (["A", "B", "C", "D", "E"], ["AD", "BE", "C"]),
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_gpus_are_dealt_out_to_the_ranks_of_a_machine(gpus: list[str], dealt: list[str], named: bool) -> None:
    names = [name.encode() for name in gpus]
    settings = given(devices=names if named and gpus else None)
    theirs = [own_settings(settings, [here()] * 3, rank, lambda: gpus)["devices"] for rank in range(3)]
    assert [b"".join(names).decode() for names in theirs] == dealt


def test_gpus_of_other_machines_and_those_a_launcher_has_dealt_are_left_alone() -> None:
    def at(machine: str, gpus: str) -> Place:
        return Place(machine, machine, frozenset([0]), (gpus,))

    ranks = [at("a", "0,1"), at("a", "2,3"), at("b", ""), at("a", "2,3")]
    theirs = [own_settings(given(), ranks, rank, lambda: ["A", "B"])["devices"] for rank in range(4)]
    assert theirs == [[b"A", b"B"], [b"A"], [b"A", b"B"], [b"B"]]


@pytest.mark.parametrize(
    ("n_servers", "servers", "gpus"),
    [(1, ["0", "", ""], ["", "A", "B"]), (3, ["0", "1", "2"], ["", "", ""]), (4, ["03", "1", "2"], ["", "", ""])],
)
def test_servers_are_dealt_out_and_gpus_to_those_that_have_none(
    n_servers: int, servers: list[str], gpus: list[str]
) -> None:
    settings = given(rpc_servers=[str(index).encode() for index in range(n_servers)])
    own = [own_settings(settings, [here()] * 3, rank, lambda: ["A", "B"]) for rank in range(3)]
    assert [b"".join(of_rank["rpc_servers"]).decode() for of_rank in own] == servers
    assert [b"".join(of_rank["devices"]).decode() for of_rank in own] == gpus


def test_ranks_load_their_models_with_their_share(tiny_path: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[dict[str, object]] = []
    make = native.NativeModel.__init__

    def init(self: native.NativeModel, settings: dict[str, object], *rest: object) -> None:
        loaded.append(settings)
        make(self, settings, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(native.NativeModel, "__init__", init)
    for module in (place, native.model):
        monkeypatch.setattr(module, "default_threads", lambda path: 7)
    monkeypatch.setattr(place, "n_cores", lambda: 7)
    with ranks(tiny_path("llama"), 3, n_threads=None) as (model, _):
        assert model.n_threads == 7
    assert [settings["n_threads_chunk"] for settings in loaded] == [2, 2, 2]


@pytest.mark.parametrize("n", [-1, 3])
def test_a_chunk_has_no_more_threads_than_its_model(n: int, tiny_path: Paths) -> None:
    with pytest.raises(InvalidArgument, match=rf"n_threads_chunk is {n}: .* \(2\)"):
        native.NativeModel(settings_of(tiny_path("llama")) | {"n_threads_chunk": n})


def settings_of(path: Path) -> dict[str, object]:
    """Those that a Model of two threads loads a file with."""
    kept: list[dict[str, object]] = []

    class Keeping:
        def NativeModel(self, settings: dict[str, object], progress: object) -> native.NativeModel:
            kept.append(settings)
            return native.NativeModel(settings)

    Model(path, n_threads=2, native=Keeping()).close()
    return kept[0]


# libgomp keeps as many threads as it needed last: they can be counted.
COUNTING = """
import os, sys
from pathlib import Path
import numpy as np
sys.path.append(sys.argv[2])
from test_rank_places import settings_of
from hogwild_local.engine import native

model = native.NativeModel(settings_of(Path(sys.argv[1])) | {"n_threads": 4, "n_threads_chunk": 2})
cache = model.cache(100, 40, b"f16", b"f16", "auto", 8)
view = native.DecodeView([cache.new_block()], list(range(20)), 0)
layers = [np.zeros(cache.layer_bytes(layer, 20), dtype=np.uint8) for layer in range(cache.n_layers())]
def n_threads():
    return len(os.listdir("/proc/self/task"))
before = n_threads()
counts = []
def chunk():
    cache.decode_chunk(view, native.Chunk([8], layers, lambda layer: None))
    counts.append(n_threads() - before)
chunk()
cache.decode([view])
counts.append(n_threads() - before)
chunk()
print(counts)
"""


@libgomp
def test_a_chunk_takes_its_own_number_of_threads_and_other_passes_take_all(tiny_path: Paths) -> None:
    done = run_isolated(COUNTING, tiny_path("llama"), str(Path(__file__).parent), environment={"OMP_DYNAMIC": "false"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[1,", "3,", "1]"]
