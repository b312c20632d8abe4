"""A model file that nobody has tried yet is tried in a process of its own.

llama.cpp ends the process over many a damaged or hostile file: an assert, a crash, a loop without an end. No check from
outside can know them all, so the file is loaded in a child first; what ends the child is an error here. A small file is
loaded whole and computes a pass; of a large one all but the weights is loaded, and its graph is built. What went well
is remembered in the user's cache folder, by path, size and time of change. LoRA adapters, and with a small file
control vectors, are tried with their model, and remembered with it.

An abort is not all that a hostile file could do: the trial keeps honest programs alive, it is no sandbox.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from ..disk import cache_folder
from ..errors import HogwildError, ModelError, OutOfMemory
from .default_model import default_model_path

MOST_S = 30.0
WHOLE = 64 * 2**20  # bytes: a file that is loaded with its weights
MOST_MEMORY = 4 * 2**30  # of the child, weights that are mapped not counted
TRUST = "HOGWILD_TRUST"  # environment variable: 1 tries no file
_PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")


def try_file(path: bytes, loras: Sequence[bytes] = (), control_vectors: Sequence[bytes] = ()) -> None:
    """Does nothing where the files were tried before, are the packaged one, or cannot be looked at (loading them says
    why). Raises ModelError, which says what ended the child."""
    file = Path(os.fsdecode(path))
    adapters = [Path(os.fsdecode(adapter)) for adapter in (*loras, *control_vectors)]
    key = _key([*_parts(file), *adapters])
    if key is None or os.environ.get(TRUST) == "1" or not sys.executable or getattr(sys, "frozen", False):
        return
    if not adapters and file.resolve() == default_model_path().resolve():
        return
    mark = cache_folder() / "tried" / key
    if mark.exists():
        return
    _try(file, adapters, len(loras))
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:
        pass  # it is tried again


def _key(files: Sequence[Path]) -> str | None:
    """What tells files, and the code that tried them, from others; None if one cannot be found."""
    try:
        states = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    except OSError:
        return None
    tried_by = version("hogwild-local"), version("llama-cpp-python")
    return hashlib.sha256(repr((states, tried_by)).encode("utf-8", errors="surrogateescape")).hexdigest()[:32]


def _parts(file: Path) -> list[Path]:
    """The files of a split model, by the name of the first."""
    named = _PART.search(file.name)
    if named is None:
        return [file]
    stem = file.name[: named.start()]
    return sorted(file.parent.glob(f"{stem.replace('[', '[[]')}-?????-of-{named[1]}.gguf")) or [file]


def _try(file: Path, adapters: Sequence[Path], n_loras: int) -> None:
    """adapters: first the LoRA ones. Raises ModelError."""
    what = " with ".join(f"'{each}'" for each in (file, *adapters))
    how = "compute" if sum(part.stat().st_size for part in _parts(file)) <= WHOLE else "build"
    code = f"import sys; sys.path[:] = {sys.path!r}; from hogwild_local.engine.trial import main; main()"
    try:
        child = subprocess.run(
            [sys.executable, "-c", code, how, str(n_loras), *map(os.fsencode, (file, *adapters))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=MOST_S,
            env={**os.environ, TRUST: "1", "GGML_NO_BACKTRACE": "1", "CUDA_VISIBLE_DEVICES": ""},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(f"llama.cpp does not come to an end with {what}: it was stopped after {MOST_S:g} s") from None
    except OSError:
        return  # no process can be started: then none can be tried
    if child.returncode != 0:
        raise ModelError(f"llama.cpp ends the process over {what} ({_cause(child.returncode, child.stderr)})")


def _cause(code: int, said: bytes) -> str:
    lines = said.decode("utf-8", errors="replace").strip().splitlines()
    named = [found[0] for line in lines if (found := re.search(r"[\w.-]+\.\w+:\d+: .*", line))]  # without folders
    last = (named or lines or [""])[-1]
    if code > 0:
        return last or f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"{name}: {last}" if last else name


# -- the child --


def main() -> None:
    """Ends with 0 if the file may be loaded: also if it is refused with a good error, which is raised again there."""
    _limit_memory()
    how, n, path, *adapters = sys.argv[1:]
    loras, control_vectors = adapters[: int(n)], adapters[int(n) :]
    try:
        if how == "compute":
            _compute(path, loras, control_vectors)
        else:
            _build(path, loras)
        return
    except (OutOfMemory, MemoryError) as error:
        sys.exit(f"it asks for more than {MOST_MEMORY >> 30} GiB: {error}")
    except HogwildError:
        pass
    _load_vocabulary(path)


def _limit_memory() -> None:
    """The system may end any other process when memory is short."""
    try:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if soft == resource.RLIM_INFINITY or soft > MOST_MEMORY:
            resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, hard))
    except (ImportError, OSError, ValueError):
        pass


def _compute(path: str, loras: Sequence[str], control_vectors: Sequence[str]) -> None:
    from .cache import SharedCache
    from .model import Model

    model = Model(path, n_threads=1, trust=True, lora=loras, control_vectors=control_vectors)
    with model, SharedCache(model, n_ctx=64, n_batch=8) as cache:
        block = cache.block("trial")
        for n in (3, 1):  # as a prompt, and as a token
            cache.decode([([block], [token % model.n_vocab for token in range(n)])])


def _build(path: str, loras: Sequence[str]) -> None:
    """Raises ModelError."""
    import llama_cpp

    model_params = llama_cpp.llama_model_default_params()
    model_params.no_alloc = True
    model_params.load_mode = 0  # LLAMA_LOAD_MODE_NONE
    model_params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), model_params)
    if model is None:
        raise ModelError(path)
    for lora in loras:
        llama_cpp.llama_adapter_lora_init(model, os.fsencode(lora))
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_threads = 64, 8, 8, 1
    llama_cpp.llama_init_from_model(model, params)


def _load_vocabulary(path: str) -> None:
    """It may be loaded without the rest."""
    from .model import Model

    try:
        with Model(path, n_threads=1, trust=True, vocab_only=True) as model:
            model.tokenize("A text.")
    except HogwildError:
        pass
