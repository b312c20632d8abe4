"""Files that are no models, and settings of loading: typed errors that name the fault, never the end of the process."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from isolated import run_isolated

from hogwild_local import Model, SharedCache
from hogwild_local.errors import InvalidArgument, ModelError, UnsupportedModel

Load = Callable[..., Model]
HEADER = Path(__file__).parent.parent / "cpp" / "include" / "hogwild.h"
NOT_NUMBERS = [None, "x", 1.0, 2.5, [1], True, np.bool_(True)]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"No such file.*missing\.gguf"):
        Model(tmp_path / "missing.gguf")


def test_a_directory_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="directory"):
        Model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"G", b"GGU", b"%PDF-1.7 ...", b"\0" * 5000, b"FUGG" * 100])
def test_a_foreign_file_is_no_gguf_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ModelError, match="is not a GGUF file"):
        Model(tmp_path / "file")


def test_a_very_long_path_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="File name too long"):
        Model(tmp_path / ("x" * 100_000))


@pytest.mark.parametrize("path", ["a\0b", "\ud800", None, 5, [], 1.5])
def test_what_cannot_be_a_path_is_refused(path: object) -> None:
    with pytest.raises(InvalidArgument, match="path"):
        Model(path)


def test_a_path_that_is_not_utf8_is_found(tiny_path: Callable[..., Path], tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.gguf"
    try:
        Path(os.fsdecode(name)).write_bytes(tiny_path("llama-bos").read_bytes())
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    for path in (name, os.fsdecode(name)):
        Model(path, n_threads=1).close()


LOAD = """
import sys
from hogwild_local import Model, errors
for path in sys.argv[1:]:
    try:
        Model(path, n_threads=1).close()
        print("loaded", path, flush=True)
    except errors.ModelError as error:
        print("refused" if path in str(error) else f"refused without a name: {error}", path, flush=True)
"""


def test_a_model_cut_anywhere_is_refused(tiny_path: Callable[..., Path], tmp_path: Path) -> None:
    whole = tiny_path("llama-bos").read_bytes()
    paths = []
    for n in [4, 5, 8, 12, 23, 24, 30, 100, 1000, 5000, len(whole) // 2, len(whole) - 1000, len(whole) - 1]:
        paths.append(tmp_path / f"{n}.gguf")
        paths[-1].write_bytes(whole[:n])
    done = run_isolated(LOAD, *paths)
    assert done.stdout.splitlines() == [f"refused {path}" for path in paths], done.stderr
    assert done.stderr == ""
    assert done.returncode == 0


def test_random_bytes_after_the_magic_are_refused(tmp_path: Path) -> None:
    paths = []
    for seed in range(40):
        rng = random.Random(seed)
        paths.append(tmp_path / f"{seed}.gguf")
        version = (3).to_bytes(4, "little") if seed % 2 else b""
        counts = rng.randrange(20).to_bytes(8, "little") * 2 if seed % 4 == 1 else b""
        paths[-1].write_bytes(b"GGUF" + version + counts + rng.randbytes(rng.choice([10, 100, 5000])))
    done = run_isolated(LOAD, *paths)
    assert done.stdout.splitlines() == [f"refused {path}" for path in paths], done.stderr
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["bert"])
def test_a_foreign_architecture_is_refused_by_name(name: str, tmp_path: Path) -> None:
    from models import write_foreign

    path = tmp_path / f"{name}.gguf"
    write_foreign(path, name)
    with pytest.raises(UnsupportedModel, match=name), Model(path, n_threads=1) as model:
        SharedCache(model, n_ctx=32)


# llama.cpp writes this model's attention out. With a cap of 0 its scores are inf * 0, which is no soft cap.
@pytest.mark.parametrize("cap", [0.0, -5.0])
def test_attention_whose_scores_are_changed_in_an_unknown_way_is_refused_by_name(cap: float, tmp_path: Path) -> None:
    from models import write_tiny

    path = tmp_path / "grok.gguf"
    write_tiny(path, "grok")
    GGUFReader(path, "r+").fields["grok.attn_logit_softcapping"].parts[-1][0] = cap
    with pytest.raises(UnsupportedModel, match=r"'grok'.*kq_tanh-0.*the scores"), Model(path, n_threads=1) as model:
        SharedCache(model, n_ctx=32)


@pytest.mark.parametrize("settings", [{"n_threads": 0}, {"n_threads": 10**6}, {"n_threads": "2"}, {"n_gpu_layers": -2},
                                      {"n_gpu_layers": 2**31}, {"n_gpu_layers": 1.0}])  # fmt: skip
def test_load_settings_are_checked_by_name(settings: dict[str, object], tiny_path: Callable[..., Path]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(settings))):
        Model(tiny_path("llama-bos"), **settings)
