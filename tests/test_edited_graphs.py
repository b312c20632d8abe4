"""Graphs as an update of llama.cpp might build them (tests/cpp/edit-graph.cpp, preloaded by a child process): what
would be misread is refused by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import llama_cpp
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
LLAMA = Path(llama_cpp.__file__).parent
COMPILER = shutil.which("c++")
FORMS = ["fused", "ggml", "composed"]
EDITS = {
    "llama": ["nothing", "parameter", "input", "in place", "second mask", "heads of keys", "heads of queries"],
    "gemma2": ["nothing", "one mask"],
    "rwkv6": ["nothing", "shift"],
    "minimax-01": ["nothing", "decay"],
}
CHILD = """
import json, os, sys
from hogwild_local import Model, SharedCache
from hogwild_local.errors import UnsupportedModel

for path, edits, forms in [json.loads(line) for line in sys.stdin]:
    for os.environ["EDIT_GRAPH"] in edits:
        with Model(path, n_threads=1) as model:
            for attention in forms:
                try:
                    with SharedCache(model, 64, type_k="f32", type_v="f32", attention=attention) as cache:
                        a, b = cache.block(), cache.block()
                        cache.decode([([a], [1, 2, 3]), ([b], [4, 5])])
                        outcome = cache.decode([([a, b], [6])]).tolist()
                except UnsupportedModel as error:
                    outcome = str(error)
                print(json.dumps(outcome), flush=True)
os._exit(0)  # llama.cpp's libraries, loaded before all others, are not taken down in their order
"""
Outcomes: TypeAlias = dict[tuple[str, str], list[str | list[list[float]]]]
"""Of a model and an edit: the refusal of each form of attention, or its logits."""

pytestmark = pytest.mark.skipif(
    COMPILER is None or sys.platform != "linux", reason="needs a C++ compiler (c++) and LD_PRELOAD"
)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, tiny_path: Callable[..., Path]) -> Outcomes:
    library = tmp_path_factory.mktemp("preload") / "edit-graph.so"
    source = str(ROOT / "tests/cpp/edit-graph.cpp")
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC", f"-I{LLAMA.parent / 'include'}"]
    libraries = ["-Wl,--no-as-needed", f"-L{LLAMA / 'lib'}", "-lllama", "-lggml-base", f"-Wl,-rpath,{LLAMA / 'lib'}"]
    subprocess.run([str(COMPILER), *flags, source, *libraries, "-o", library], check=True)
    preload = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), str(library)]))
    tasks = "\n".join(json.dumps([str(tiny_path(name)), edits, FORMS]) for name, edits in EDITS.items())
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHILD],
        input=tasks,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LD_PRELOAD": preload},
    )
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, done.stdout.splitlines())
    return {(name, edit): [next(lines) for _ in FORMS] for name, edits in EDITS.items() for edit in edits}


@pytest.mark.parametrize(
    ("name", "edit", "refusal"),
    [
        ("llama", "parameter", "has parameters that are not known"),
        ("llama", "input", "has more inputs than are known"),
        ("llama", "in place", "writes over a tensor in a way that is not followed"),
        ("llama", "second mask", "reads another mask than other layers, or the same, against what its window is"),
        ("gemma2", "one mask", "reads another mask than other layers, or the same, against what its window is"),
        ("rwkv6", "shift", "puts a state before something else than the inputs of the tokens behind it"),
        ("minimax-01", "decay", "reads a state of a recurrent layer in an unknown way"),
        ("llama", "heads of keys", "changes keys after their rotation, in a way that cannot be taken back"),
    ],
)
def test_what_would_be_misread_is_refused_by_name(name: str, edit: str, refusal: str, outcomes: Outcomes) -> None:
    for outcome in outcomes[name, edit]:
        assert isinstance(outcome, str)
        assert f"architecture '{name}': " in outcome
        assert refusal in outcome


@pytest.mark.parametrize("name", list(EDITS))
def test_a_graph_that_is_not_changed_is_not_refused(name: str, outcomes: Outcomes) -> None:
    assert not any(isinstance(outcome, str) for outcome in outcomes[name, "nothing"])


def test_queries_may_be_some_of_the_heads_that_were_rotated(outcomes: Outcomes) -> None:
    for edited, plain in zip(outcomes["llama", "heads of queries"], outcomes["llama", "nothing"], strict=True):
        assert np.abs(np.subtract(edited, plain)).max() <= 1e-5
