"""The package: what it exports, who may touch the compiled library, and that it refuses another llama.cpp."""

from __future__ import annotations

import ast
import ctypes
import importlib.metadata
import inspect
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import llama_cpp
import pytest
from isolated import run_isolated

import hogwild_local
from hogwild_local import Model, SharedCache
from hogwild_local.engine import build
from hogwild_local.engine.native import library

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "hogwild_local").rglob("*.py"))
PUBLIC = {
    "CacheBlock", "Chat", "Hogwild", "Layout", "Model", "PromptStyle", "Result", "Run", "Sampler", "SamplingParams",
    "SharedCache", "Worker", "errors", "events", "set_log_hook",
}  # fmt: skip


def test_the_public_names_are_these_and_sorted() -> None:
    assert set(hogwild_local.__all__) == PUBLIC
    assert hogwild_local.__all__ == sorted(hogwild_local.__all__)


def test_public_names_are_seen_before_they_are_used() -> None:
    """By help(), completion, and who imports all of them."""
    code = """
import pydoc, hogwild_local
before = dir(hogwild_local)
from hogwild_local import *
print(*(name for name in before if name in globals() and not name.startswith("_")))
print(pydoc.render_doc(hogwild_local))
"""
    names, *page = run_isolated(code).stdout.splitlines()
    assert set(names.split()) >= PUBLIC
    assert all(any(name in line for line in page) for name in PUBLIC - {"errors", "events"})


def test_a_name_that_there_is_not_is_an_attribute_error_that_says_a_near_one() -> None:
    assert not hasattr(hogwild_local, "Modell")
    done = run_isolated("from hogwild_local import Modell")
    assert "cannot import name 'Modell'" in done.stderr
    assert "Did you mean: 'Model'" in run_isolated("import hogwild_local; hogwild_local.Modell").stderr


@pytest.mark.parametrize("name", sorted(PUBLIC - {"errors", "events", "set_log_hook"}))
def test_a_public_class_is_found_again_by_pickle(name: str) -> None:
    assert pickle.loads(pickle.dumps(getattr(hogwild_local, name))) is getattr(hogwild_local, name)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_exists_and_is_documented_with_its_methods(name: str) -> None:
    thing = getattr(hogwild_local, name)
    assert len(inspect.getdoc(thing) or "") > 20
    if inspect.isclass(thing):
        for method, value in vars(thing).items():
            if not method.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                assert inspect.getdoc(value) or method == "close", f"{name}.{method} has no docstring"


def test_the_low_level_names_are_those_that_others_use() -> None:
    def names(function: Callable[..., object]) -> list[str]:
        return [name for name in inspect.signature(function).parameters if name != "self"]

    assert names(Model.__init__)[:3] == ["path", "n_gpu_layers", "n_threads"]
    assert names(Model.tokenize) == ["text", "add_special", "parse_special"]
    assert names(SharedCache.__init__) == ["model", "n_ctx", "type_k", "type_v", "n_batch", "attention", "n_windows"]
    defaults = {name: p.default for name, p in inspect.signature(SharedCache).parameters.items() if name != "model"}
    assert defaults == {
        "n_ctx": 4096, "type_k": "f16", "type_v": "f16", "n_batch": 512, "attention": "auto", "n_windows": None
    }  # fmt: skip
    assert names(Model.detokenize)[0] == "ids"
    assert names(SharedCache.block) == ["name", "anchored"]
    assert names(SharedCache.decode)[0] == "views"
    assert isinstance(SharedCache.n_free, property)
    for method in ("append", "clear", "truncate", "free", "__len__"):
        assert callable(getattr(hogwild_local.CacheBlock, method))


def imported(path: Path) -> set[str]:
    """Names of modules and of what is taken from them."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module or ''}.{alias.name}" for alias in node.names} | {node.module or ""}
    return names


def test_only_native_touches_the_compiled_library() -> None:
    assert len(SOURCES) > 10
    guilty = {
        path.parent
        for path in SOURCES
        if any(re.search(r"(^|\.)(_hogwild|ffi|lib)($|\.)", name) for name in imported(path))
    }
    assert guilty == {ROOT / "hogwild_local" / "engine" / "native"}


def test_errors_and_events_import_without_the_compiled_library() -> None:
    """That options stand below the engine, test_floors.py says; a file of theirs is called engine, too."""
    package = ROOT / "hogwild_local"
    for path in [package / "errors.py", package / "events.py", *(package / "options").glob("*.py")]:
        compiled = {"native", "_hogwild", "llama_cpp"} | ({"engine"} if path.parent == package else set())
        assert not any(compiled & set(name.split(".")) for name in imported(path)), path


WITHOUT_ENGINE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("llama_cpp", "cffi", "_cffi_backend") or name.endswith("._hogwild"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Absent())
from hogwild_local.cli.main import main
sys.argv[1:] = sys.argv[2:]
main()
"""


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["run", "--help"], ["eval", "-h"], ["bench", "-h"]])
def test_version_and_help_need_no_compiled_library(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-P", "-c", WITHOUT_ENGINE, "-", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("hogwild-local 0", "Usage: "))


def test_the_package_says_that_it_is_typed_and_which_version_it_is() -> None:
    assert (ROOT / "hogwild_local" / "py.typed").exists()
    assert hogwild_local.__version__ == importlib.metadata.version("hogwild-local")


def test_links_of_the_readme_work_where_only_the_readme_is() -> None:
    """On PyPI a link to docs/eval.md leads nowhere; the text names such a file instead, and the file is there."""
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    named = set(re.findall(r"`((?:docs/|models/)?\w+\.md|docs/[\w.-]+)`", text))
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("header", ["hogwild.h", "hogwild-sampler.h", "hogwild-attention.h", "hogwild-trial.h"])
def test_a_header_is_plain_c(header: str, tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "test.c").write_text(f'#include "{header}"\n#include "{header}"\nint main(void) {{ return 0; }}\n')
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", f"-I{ROOT / 'cpp' / 'include'}"]
    done = subprocess.run([compiler, *flags, tmp_path / "test.c"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- the llama.cpp it runs on ----------------------------------------------------------------------------------


def test_another_version_of_llama_cpp_is_an_import_error_that_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = llama_cpp.__version__
    monkeypatch.setattr(llama_cpp, "__version__", "0.0.1")
    with pytest.raises(
        ImportError, match=rf"0\.0\.1.*pip install llama-cpp-python=={re.escape(wanted)}.*CMAKE_ARGS"
    ) as e:
        build.load_llama_cpp()
    assert "--force-reinstall" not in str(e.value)  # it would put the CPU's build in the place of one for a GPU


@pytest.mark.parametrize("struct", ["llama_model_params", "llama_context_params"])
def test_another_struct_size_is_an_import_error_that_names_it(struct: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Larger(ctypes.Structure):
        _fields_ = [("old", getattr(llama_cpp, struct)), ("new", ctypes.c_int64)]

    monkeypatch.setattr(llama_cpp, struct, Larger)
    with pytest.raises(ImportError, match=rf"{struct} has \d+ bytes.*python -m pip install"):
        library.check_build()


def test_the_versions_pinned_in_the_project_are_one() -> None:
    pins = set(re.findall(r"llama-cpp-python==([0-9.]+)", (ROOT / "pyproject.toml").read_text()))
    pins |= set(re.findall(r"llama-cpp-python==([0-9.]+)", (ROOT / "CMakeLists.txt").read_text()))
    assert pins == {llama_cpp.__version__}
    builds = [(ROOT / "CMakeLists.txt", r"cmake_minimum_required\(VERSION (\d+\.\d+)"),
              (ROOT / "pyproject.toml", r'cmake\.version = ">=(\d+\.\d+)"'),
              (ROOT / "docs" / "gpu.md", r"CMake (\d+\.\d+) or newer")]  # fmt: skip
    assert len({re.search(wanted, file.read_text())[1] for file, wanted in builds}) == 1  # type: ignore[index]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="mapped files are read from /proc")
def test_one_copy_of_each_llama_library_is_mapped(tiny_path: Callable[..., Path]) -> None:
    code = """
import sys
from pathlib import Path
from hogwild_local import Model, SharedCache
with Model(sys.argv[1], n_threads=1) as model, SharedCache(model, n_ctx=32) as cache:
    cache.decode([([cache.block()], [1])])
files = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
for name in ("libllama", "libggml-base", "libggml-cpu", "_hogwild."):
    print(name, sum(Path(file).name.startswith(name) for file in files))
"""
    done = run_isolated(code, tiny_path("llama-bos"))
    assert done.stdout.splitlines() == ["libllama 1", "libggml-base 1", "libggml-cpu 1", "_hogwild. 1"], done.stderr
