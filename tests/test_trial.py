"""Damaged and hostile model files: each gives a model or a typed error, whatever llama.cpp does with it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from isolated import run_isolated
from test_adapters import lora_tensors, write_lora

from hogwild_local import Model, SharedCache
from hogwild_local.engine import trial
from hogwild_local.engine.default_model import default_model_path
from hogwild_local.errors import ModelError

SAYS_MODULES = """
def says_modules(code):
    print(*sys.modules, flush=True)
    leave(code)
os._exit = says_modules
trial_child.main()
"""
HIDES_THE_LIBRARY_ONCE = """
from importlib import import_module
def found_later(name):
    if name == "_hogwild" and "llama_cpp.llama_cpp" not in sys.modules:
        raise ImportError("libllama.so.0: cannot open shared object file")
    return import_module(name)
trial_child.importlib.import_module = found_later
"""

Paths = Callable[..., Path]
Change = Callable[[dict[str, Any], dict[str, np.ndarray]], None]


@pytest.fixture(autouse=True)
def _no_trust(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HOGWILD_TRUST", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_mutant(model: Path, path: Path, change: Change) -> Path:
    """A copy with other metadata (values by key, without the architecture's name in front) or tensors."""
    reader = GGUFReader(model)
    architecture = reader.fields["general.architecture"].contents()
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    values = {name.removeprefix(f"{architecture}."): field.contents() for name, field in fields.items()}
    types = {name.removeprefix(f"{architecture}."): field.types for name, field in fields.items()}
    tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    change(values, tensors)
    writer = GGUFWriter(path, architecture)
    for name, value in values.items():
        if name != "general.architecture":
            kinds = types[name]
            sub_type = kinds[-1] if kinds[0] == GGUFValueType.ARRAY else None
            is_general = name.startswith(("general.", "tokenizer.", "hogwild."))
            writer.add_key_value(name if is_general else f"{architecture}.{name}", value, kinds[0], sub_type)
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def sets(key: str, value: Any) -> Change:
    def change(values: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        assert key in values, sorted(values)
        values[key] = value

    return change


def repeats_a_token(values: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    values["tokenizer.ggml.tokens"][300] = values["tokenizer.ggml.tokens"][299]


def whole_numbers(name: str) -> Change:
    def change(values: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        tensors[name] = tensors[name].astype(np.int32)

    return change


MUTANTS: dict[str, tuple[str, Change, str | None]] = {
    "token twice": ("llama", repeats_a_token, r"llama-vocab.cpp:\d+: GGML_ASSERT"),
    "whole numbers as weights": ("llama", whole_numbers("blk.0.ffn_up.weight"), "SIGSEGV"),
    "whole numbers as norm": ("llama", whole_numbers("blk.0.attn_norm.weight"), r"SIGABRT: binary-ops.cpp:\d+"),
    "no rope dimension": ("gemma2", sets("rope.dimension_count", 0), "does not come to an end"),
    "four thousand million layers": ("llama", sets("block_count", 4294967293), "n_layer_all"),
    "experts used": ("grok", sets("expert_used_count", 77), "n_expert_used_max <="),
    "no experts used": ("grok", sets("expert_used_count", 0), "n_expert_used_max > 0"),
    "head size": ("qwen3", sets("attention.key_length", 7), "wrong shape"),
    "no heads": ("llama", sets("attention.head_count", 0), "wrong shape"),
    "heads": ("llama", sets("attention.head_count", 2**31), "wrong shape"),
    "epsilon": ("llama", sets("attention.layer_norm_rms_epsilon", float("nan")), "eps >= 0"),
    "negative epsilon": ("llama", sets("attention.layer_norm_rms_epsilon", -1.0), "eps >= 0"),
    "context": ("llama", sets("context_length", 0), None),
}


def use(path: Path) -> None:
    """Loads it and computes a pass."""
    with Model(path, n_threads=1) as model, SharedCache(model, n_ctx=64) as cache:
        cache.decode([([cache.block("a")], [1, 2, 3])])


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_a_model_or_a_typed_error(
    name: str, tiny_path: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "MOST_S", 5.0)
    shape, change, said = MUTANTS[name]
    path = write_mutant(tiny_path(shape), tmp_path / "mutant.gguf", change)
    if said is None:
        use(path)
        return
    with pytest.raises(ModelError, match=said):
        use(path)


@pytest.mark.parametrize("name", ["token twice", "four thousand million layers"])
def test_a_large_file_is_tried_without_its_weights(
    name: str, tiny_path: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "WHOLE", 0)
    shape, change, said = MUTANTS[name]
    with pytest.raises(ModelError, match=said):
        Model(write_mutant(tiny_path(shape), tmp_path / "mutant.gguf", change))
    Model(tiny_path(shape), n_threads=1).close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int, int]]:
    """What the system is asked to read: file, begin, bytes, advice."""
    calls: list[tuple[str, int, int, int]] = []

    def advise(opened: int, begin: int, n: int, advice: int) -> None:
        calls.append((str(Path(f"/proc/self/fd/{opened}").readlink()), begin, n, advice))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    monkeypatch.setattr(trial, "WHOLE", 1)
    return calls


only_linux = pytest.mark.skipif(sys.platform != "linux", reason="the system cannot be asked")


@only_linux
def test_all_of_a_large_file_that_is_not_in_memory_is_read_while_it_is_tried(
    asked: list[tuple[str, int, int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In parts: of a request for all, Linux reads the first one to eight MiB."""
    in_memory = {1}
    monkeypatch.setattr(trial, "_is_in_memory", lambda opened, begin: begin // trial.READ_AHEAD in in_memory)
    file = tmp_path / "large.gguf"
    file.write_bytes(bytes(3 * trial.READ_AHEAD + 5))
    all_asked = [(str(file), i * trial.READ_AHEAD, trial.READ_AHEAD, os.POSIX_FADV_WILLNEED) for i in (0, 2, 3)]

    def run(command: object, what: str) -> int:
        end = time.monotonic() + 60.0
        while asked != all_asked and time.monotonic() < end:
            time.sleep(0.001)
        return 0

    monkeypatch.setattr(trial, "_run", run)
    trial.try_file(os.fsencode(file))
    assert asked == all_asked


@only_linux
def test_no_more_of_it_is_read_when_it_has_been_tried(
    asked: list[tuple[str, int, int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_go_on, n_looked = threading.Event(), threading.Event(), 0

    def is_in_memory(opened: int, begin: int) -> bool:
        nonlocal n_looked
        n_looked += 1
        begun.set()
        return may_go_on.wait(60)

    def ends_over_it(command: object, what: str) -> int:
        assert begun.wait(60)
        raise ModelError("llama.cpp ends the process")

    monkeypatch.setattr(trial, "_is_in_memory", is_in_memory)
    monkeypatch.setattr(trial, "_run", ends_over_it)
    file = tmp_path / "large.gguf"
    file.write_bytes(bytes(3 * trial.READ_AHEAD))
    before = set(threading.enumerate())
    with pytest.raises(ModelError):
        trial.try_file(os.fsencode(file))
    [reader] = set(threading.enumerate()) - before
    may_go_on.set()
    reader.join()
    assert (n_looked, asked) == (1, [])


@only_linux
def test_what_is_in_memory_is_known(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb+") as file:
        file.write(bytes(5))
        file.flush()
        os.fsync(file.fileno())
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except OSError:
            pytest.skip("this file system does not say")
        assert trial._is_in_memory(file.fileno(), 0)
        assert not trial._is_in_memory(file.fileno(), 5)  # behind its end there is nothing


ORDER = """
import hogwild_local.cli.main, subprocess
from hogwild_local.engine import trial
trial.WHOLE = 0
happened = ["numpy was there"] if "numpy" in sys.modules else []
class Noticing:
    def find_spec(self, name, path=None, target=None):
        if name in ("numpy", "_cffi_backend"):
            happened.append(name)
class Popen(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        happened.append("child begins")
    def communicate(self, *arguments, **options):
        said = super().communicate(*arguments, **options)
        happened.append("child has ended")
        return said
subprocess.Popen = Popen
sys.meta_path.insert(0, Noticing())
progress = lambda part: happened.append("file is loaded") if part == 0 else None
hogwild_local.Model(sys.argv[1], n_threads=1, progress=progress).close()
print(*(each for i, each in enumerate(happened) if each not in happened[:i]), sep=", ")
"""


def test_what_loads_a_file_is_itself_loaded_while_the_file_is_tried(tiny_path: Paths) -> None:
    """numpy too, which takes as long as all the rest: no module imports it before the library does."""
    done = run_isolated(ORDER, tiny_path("llama"))
    assert done.returncode == 0, done.stderr
    begins, *meanwhile, ends, loaded = done.stdout.strip().split(", ")
    assert (begins, ends, loaded) == ("child begins", "child has ended", "file is loaded")
    assert set(meanwhile) == {"numpy", "_cffi_backend"}


@pytest.mark.parametrize("most_whole", [0, trial.WHOLE])
def test_a_damaged_vocabulary_is_an_error_also_without_the_rest(
    most_whole: int, tiny_path: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(values: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        repeats_a_token(values, tensors)
        tensors.clear()

    monkeypatch.setattr(trial, "WHOLE", most_whole)
    with pytest.raises(ModelError, match="GGML_ASSERT"):
        Model(write_mutant(tiny_path("llama"), tmp_path / "mutant.gguf", change), vocab_only=True)


def test_of_a_large_file_that_is_refused_the_vocabulary_is_tried(
    tiny_path: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "WHOLE", 0)
    path = write_mutant(tiny_path("llama"), tmp_path / "mutant.gguf", lambda _, tensors: tensors.clear())
    with Model(path, vocab_only=True) as model:
        assert model.detokenize(model.tokenize("A text.", add_special=False)) == "A text."
    with pytest.raises(ModelError, match="cannot load"):
        Model(path)


@pytest.mark.parametrize("finds_llama_cpp", [True, False])
def test_the_child_of_a_large_file_loads_the_compiled_library_alone(
    finds_llama_cpp: bool, tiny_path: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of this process's places, and none of the packages; of llama_cpp where the library finds no llama.cpp itself."""
    monkeypatch.setattr(trial, "WHOLE", 0)
    ran: list[list[str]] = []
    run = trial._run
    monkeypatch.setattr(trial, "_run", lambda command, what: ran.append(list(command)) or run(command, what))
    Model(tiny_path("llama"), n_threads=1).close()
    [[python, *options, code, refused, most, folder, path]] = ran
    assert options == ["-I", "-S", "-c"]
    before = "" if finds_llama_cpp else HIDES_THE_LIBRARY_ONCE
    code = code.replace("; trial_child.main()", f"{before}\nos = trial_child.os\nleave = os._exit\n{SAYS_MODULES}")
    done = subprocess.run([python, *options, code, refused, most, folder, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.split())
    assert not {"hogwild_local", "numpy", "jinja2", "diskcache"} & imported
    assert ("llama_cpp" in imported) is not finds_llama_cpp


def test_ctrl_c_ends_the_child_and_nothing_of_it_stays(tiny_path: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, command: object, **options: Any) -> None:
            super().__init__([sys.executable, "-c", "import time; time.sleep(600)"], **options)
            children.append(self)

        def _communicate(self, *arguments: Any) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        Model(tiny_path("llama"), n_threads=1)
    [child] = children
    assert child.returncode is not None


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were tried; the trial itself is left out."""
    tried: list[Path] = []
    monkeypatch.setattr(trial, "_try", lambda file, adapters, n_loras: tried.extend([file, *adapters]))
    return tried


def test_a_file_is_tried_once_and_again_when_it_has_changed(
    tiny_path: Paths, tmp_path: Path, trials: list[Path]
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny_path("llama").read_bytes())
    for _ in range(2):
        Model(path, n_threads=1).close()
    assert trials == [path]
    os.utime(path, ns=(1, 1))
    Model(path, n_threads=1).close()
    assert trials == [path, path]
    (tmp_path / "cache").rename(tmp_path / "old")
    (tmp_path / "cache").write_text("no folder")  # nothing can be remembered: it is tried each time
    for _ in range(2):
        Model(path, n_threads=1).close()
    assert len(trials) == 4


def test_what_is_trusted_is_not_tried(tiny_path: Paths, trials: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    Model(tiny_path("llama"), n_threads=1, trust=True).close()
    Model(default_model_path(), n_threads=1, vocab_only=True).close()
    monkeypatch.setenv("HOGWILD_TRUST", "1")
    Model(tiny_path("llama"), n_threads=1).close()
    assert trials == []


def test_all_parts_of_a_model_are_what_was_tried(tmp_path: Path, trials: list[Path]) -> None:
    parts = [tmp_path / f"[m]-{i:05}-of-00002.gguf" for i in (1, 2)]
    for part in parts:
        part.write_bytes(b"GGUF")
    for change in (lambda: None, lambda: None, lambda: os.utime(parts[1], ns=(1, 1))):
        change()
        trial.try_file(os.fsencode(parts[0]))
    assert trials == [parts[0]] * 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a file that has no end")
@pytest.mark.parametrize(("kind", "most_whole"), [("lora", 0), ("lora", trial.WHOLE), ("control_vectors", trial.WHOLE)])
def test_an_adapter_that_ends_the_trial_is_an_error_that_names_it(
    kind: str, most_whole: int, tiny_path: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "WHOLE", most_whole)
    monkeypatch.setattr(trial, "MOST_S", 2.0)
    path = tmp_path / "adapter.gguf"
    os.mkfifo(path)  # whoever reads it waits, this process until the timer ends
    end = threading.Timer(20.0, lambda: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)))
    end.daemon = True
    end.start()
    with pytest.raises(ModelError, match=r"come to an end with '.*llama-f32.gguf' with '.*adapter.gguf'"):
        Model(tiny_path("llama"), n_threads=1, **{kind: [path]})
    end.cancel()


def test_adapters_are_tried_with_their_model_once(tiny_path: Paths, tmp_path: Path, trials: list[Path]) -> None:
    model = tiny_path("llama")
    lora = write_lora(tmp_path / "lora.gguf", lora_tensors(model))
    Model(model, n_threads=1).close()
    for _ in range(2):
        Model(model, n_threads=1, lora=[(lora, 0.5)]).close()
    assert trials == [model, model, lora]
    os.utime(lora, ns=(1, 1))
    Model(model, n_threads=1, lora=[lora]).close()
    assert trials[3:] == [model, lora]


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot open"):
        Model(tmp_path / "none.gguf")
