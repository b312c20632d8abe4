"""A model file that nobody has tried yet is tried in a process of its own.

llama.cpp ends the process over many a damaged or hostile file: an assert, a crash, a loop without an end. No check from
outside can know them all, so the file is loaded in a child first; what ends the child is an error here. A small file is
loaded whole and computes a pass; of a large one all but the weights is loaded, and its graph is built. What went well
is remembered in the user's cache folder, by path, size and time of change. LoRA adapters, and with a small file
control vectors, are tried with their model, and remembered with it.

An abort is not all that a hostile file could do: the trial keeps honest programs alive, it is no sandbox.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread

from ..disk import cache_folder
from ..errors import HogwildError, ModelError, OutOfMemory
from .default_model import default_model_path

MOST_S = 30.0
MOST_MEMORY = 4 * 2**30  # bytes of the child, weights that are mapped not counted
REFUSED = 93  # how a child ends where llama.cpp refuses the file with an error; no signal's number, nor abort()'s
READ_AHEAD = 2**20  # bytes: of a longer request Linux reads the beginning
WHOLE = 64 * 2**20  # bytes: a file that is loaded with its weights
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
    from importlib.metadata import version

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
    paths = [*map(os.fsencode, (file, *adapters))]
    if sum(part.stat().st_size for part in _parts(file)) <= WHOLE:
        _run(_command("compute", n_loras, paths), what)
        return
    with _read_ahead(_parts(file)):
        ended = _run(_short_command(paths[: 1 + n_loras]), what)
    if ended == REFUSED:
        _run(_command("vocabulary", 0, paths[:1]), what)  # which may be loaded without the rest


@contextlib.contextmanager
def _read_ahead(files: Sequence[Path]) -> Iterator[None]:
    """Has the system read files meanwhile, where it can be asked to: the disk would be idle."""
    is_over = Event()
    try:
        if sys.platform == "linux":
            Thread(target=_ask_for, args=(files, is_over), daemon=True).start()
        yield
    finally:
        is_over.set()


if sys.platform == "linux":

    def _ask_for(files: Sequence[Path], is_over: Event) -> None:
        for file in files:
            with contextlib.suppress(OSError), file.open("rb") as opened:  # it is read when it is loaded
                for begin in range(0, file.stat().st_size, READ_AHEAD):
                    if is_over.is_set():
                        return
                    if not _is_in_memory(opened.fileno(), begin):
                        os.posix_fadvise(opened.fileno(), begin, READ_AHEAD, os.POSIX_FADV_WILLNEED)

    def _is_in_memory(opened: int, begin: int) -> bool:
        try:
            return os.preadv(opened, [bytearray(1)], begin, os.RWF_NOWAIT) > 0
        except OSError:  # it is not, or this file system does not say
            return False


def _command(how: str, n_loras: int, paths: Sequence[bytes]) -> list[str | bytes]:
    code = f"import sys; sys.path[:] = {sys.path!r}; from hogwild_local.engine.trial import main; main()"
    return [sys.executable, "-c", code, how, str(n_loras), *paths]


def _short_command(paths: Sequence[bytes]) -> list[str | bytes]:
    places = [*sys.path, _folder_of("hogwild_local.engine._hogwild"), str(Path(__file__).parent / "native")]
    code = f"import sys; sys.path[:] = {places!r}; import trial_child; trial_child.main()"
    options = [str(REFUSED), str(MOST_MEMORY), _folder_of("llama_cpp")]
    return [sys.executable, "-I", "-S", "-c", code, *options, *paths]


def _folder_of(module: str) -> str:
    """Where it would be imported from."""
    found = find_spec(module)
    return "" if found is None or found.origin is None else str(Path(found.origin).parent)


def _run(command: Sequence[str | bytes], what: str) -> int:
    """How the child ended, 0 or REFUSED. Raises ModelError for any other end."""
    environment = {**os.environ, TRUST: "1", "GGML_NO_BACKTRACE": "1", "CUDA_VISIBLE_DEVICES": ""}
    nothing = subprocess.DEVNULL
    try:
        child = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=subprocess.PIPE, env=environment)
    except OSError:
        return 0  # no process can be started: then none can be tried
    with child:
        try:
            from . import native  # noqa: F401  what loads the file then is itself loaded meanwhile

            said = child.communicate(timeout=MOST_S)[1]
        except BaseException as error:
            child.kill()
            child.wait()  # after Ctrl+C Popen itself does not
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            late = f"llama.cpp does not come to an end with {what}: it was stopped after {MOST_S:g} s"
            raise ModelError(late) from None
    if child.returncode not in (0, REFUSED):
        raise ModelError(f"llama.cpp ends the process over {what} ({_cause(child.returncode, said)})")
    return child.returncode


def _cause(code: int, said: bytes) -> str:
    lines = said.decode("utf-8", errors="replace").strip().splitlines()
    named = [found[0] for line in lines if (found := re.search(r"[\w.-]+\.\w+:\d+: .*", line))]  # without folders
    last = (named or lines or [""])[-1]
    if code > 0:
        return last or f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"{name}: {last}" if last else name


# -- the child that computes --


def main() -> None:
    """Ends with 0 if the file may be loaded: also if it is refused with a good error, which is raised again there."""
    from .native.trial_child import limit_memory

    limit_memory(MOST_MEMORY)
    how, n, path, *adapters = sys.argv[1:]
    try:
        if how == "compute":
            _compute(path, adapters[: int(n)], adapters[int(n) :])
            return
    except (OutOfMemory, MemoryError) as error:
        sys.exit(f"it asks for more than {MOST_MEMORY >> 30} GiB: {error}")
    except HogwildError:
        pass
    _load_vocabulary(path)


def _compute(path: str, loras: Sequence[str], control_vectors: Sequence[str]) -> None:
    from .cache import SharedCache
    from .model import Model

    model = Model(path, n_threads=1, trust=True, lora=loras, control_vectors=control_vectors)
    with model, SharedCache(model, n_ctx=64, n_batch=8) as cache:
        block = cache.block("trial")
        for n in (3, 1):  # as a prompt, and as a token
            cache.decode([([block], [token % model.n_vocab for token in range(n)])])


def _load_vocabulary(path: str) -> None:
    from .model import Model

    try:
        with Model(path, n_threads=1, trust=True, vocab_only=True) as model:
            model.tokenize("A text.")
    except HogwildError:
        pass
