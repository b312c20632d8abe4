"""What all tests share: tiny models written when they are first asked for, and a header that names the machine."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Last in the path, also under "python -m pytest": hogwild_local is the installed one, models/ that of this checkout.
ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT] + [str(ROOT)]

# Tests trust the models that they write: a trial of each would cost a process (test_trial.py takes this away).
os.environ["HOGWILD_TRUST"] = "1"
_numbers = itertools.count()
KEPT = ("HOGWILD_RPC_BACKEND", "HOGWILD_TEST_BACKEND", "HOGWILD_TRUST")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's HOGWILD_* settings must not change what the command line does in tests."""
    for name in list(os.environ):
        if name.startswith("HOGWILD_") and name not in KEPT:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of this test alone, not there yet: what was measured on a developer's machine must not change how tests cut
    prompts, nor be changed by them."""
    folder = tmp_path_factory.getbasetemp() / f"cache-{next(_numbers)}"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "hogwild-local"


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """tiny_path(name, file_type="f32"): a model of models/tiny.py on disk."""
    from models.tiny import write_tiny

    directory = tmp_path_factory.mktemp("models")

    def path(name: str, file_type: str = "f32") -> Path:
        file = directory / f"{name}-{file_type}.gguf"
        if not file.exists():
            write_tiny(file, name, file_type=file_type)
        return file

    return path


def _loader(tiny_path: Callable[..., Path], n_threads: int) -> Iterator[Callable[..., object]]:
    from hogwild_local import Model

    loaded: dict[tuple[str, str], Model] = {}

    def load(name: str, file_type: str = "f32") -> Model:
        if (name, file_type) not in loaded:
            loaded[name, file_type] = Model(tiny_path(name, file_type), n_threads=n_threads)
        return loaded[name, file_type]

    yield load
    for model in loaded.values():
        model.close()


@pytest.fixture(scope="session")
def single(tiny_path: Callable[..., Path]) -> Iterator[Callable[..., object]]:
    """single(name, file_type="f32"): as tiny, with one thread. On a busy machine threads wait long for each other: a
    tiny pass of two takes up to 1,000 times as long as a pass of one."""
    yield from _loader(tiny_path, 1)


@pytest.fixture(scope="session")
def tiny(tiny_path: Callable[..., Path]) -> Iterator[Callable[..., object]]:
    """tiny(name, file_type="f32"): the model, loaded once with two threads."""
    yield from _loader(tiny_path, 2)


@pytest.fixture(scope="module")
def vocabulary() -> Iterator[Callable[[Path], object]]:
    """vocabulary(path): a model without weights. The last one is kept: the tests of one follow each other."""
    from hogwild_local import Model

    kept: dict[Path, Model] = {}

    def load(path: Path) -> Model:
        if path not in kept:
            while kept:
                kept.popitem()[1].close()
            kept[path] = Model(path, n_threads=1, vocab_only=True)
        return kept[path]

    yield load
    while kept:
        kept.popitem()[1].close()


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """With the embedded model. Nothing is left of a module's requests."""
    from server_helper import served

    with served() as made:
        yield made
        made.idle()


@pytest.fixture(scope="module")
def wanted() -> Any:
    """What three workers write of the sheet without a server."""
    from server_helper import SHEET, embedded

    with embedded() as hogwild:
        return hogwild.generate(SHEET, seed=1, workers=3)


@pytest.fixture
def client(server: Any) -> Iterator[Any]:
    """OpenAI's."""
    import openai

    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="none") as made:
        yield made


@pytest.fixture(scope="session", params=["chromium", "firefox"])
def browser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real one, which all tests of the page share."""
    from browsers import BROWSERS

    made = BROWSERS[request.param](tmp_path_factory.mktemp(request.param) / "downloads")
    yield made
    made.driver.quit()


@pytest.fixture
def gate() -> Any:
    """Holds the embedded model, which has words for what the user says here."""
    from browser import Gate

    return Gate(said="{{ text }}\n")


@pytest.fixture
def page(browser: Any, gate: Any) -> Iterator[Any]:
    from browser import opened

    with opened(browser, gate) as made:
        made.until(lambda: made["numbers"].text == "Room for 6144 tokens")
        yield made


def pytest_report_header() -> list[str]:
    try:
        import llama_cpp

        info = llama_cpp.llama_print_system_info().decode()
        return [f"llama-cpp-python {llama_cpp.__version__}", f"llama.cpp: {info}"]
    except ImportError as error:
        return [f"llama-cpp-python: {error}"]
