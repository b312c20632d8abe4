"""What works where nothing is compiled and llama_cpp is not there, and what is said where they are needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from isolated import run_isolated

HIDE = """
for name in sys.argv[1].split(","):
    sys.modules[name] = None  # its import is an ImportError
"""
HIDDEN = "llama_cpp,hogwild_local.engine._hogwild"


def test_the_package_is_imported_without_what_is_compiled() -> None:
    code = """
import hogwild_local, importlib, pkgutil
from hogwild_local import *
names = [module.name for module in pkgutil.walk_packages(hogwild_local.__path__, "hogwild_local.")]
need_it = {"engine.native", "engine.child", "engine._hogwild", "runahead.leader"}
need_it |= {"cli.baseline", "cli.measure", "cli.runahead_measure"}
need_it |= {"evaluation.math_server"}  # an extra, and a process of its own
for name in set(names) - {f"hogwild_local.{name}" for name in need_it}:
    importlib.import_module(name)
hogwild_local.set_log_hook(print)
print("numpy" in sys.modules, Hogwild, len(names) > 40)
"""
    done = run_isolated(HIDE + code, HIDDEN)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True <class 'hogwild_local.hogwild.Hogwild'> True\n"


HELP = "from hogwild_local.cli.main import cli; cli(['--help'], standalone_mode=False)"
RARE = {"asyncio", "email", "importlib.metadata", "jinja2", "llama_cpp", "logging", "numpy", "rich", "ssl"}


def loaded_by(code: str) -> set[str]:
    """All modules that are imported then."""
    done = run_isolated(f"{code}\nprint(*sys.modules)")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def ours_of(code: str) -> set[str]:
    return {name.removeprefix("hogwild_local.") for name in loaded_by(code) if name.startswith("hogwild_local.")}


def test_the_package_alone_imports_none_of_its_modules() -> None:
    assert ours_of("import hogwild_local; dir(hogwild_local)") == set()


@pytest.mark.parametrize(
    ("name", "rooms"),
    [
        ("Model", {"engine", "options", "checks", "disk", "errors"}),
        ("SharedCache", {"engine", "options", "checks", "disk", "errors"}),
        ("SamplingParams", {"options", "checks", "errors"}),
        ("events", {"events"}),
        ("errors", {"errors"}),
        ("__version__", set()),
    ],
)
def test_a_public_name_imports_the_rooms_that_it_needs(name: str, rooms: set[str]) -> None:
    assert {module.partition(".")[0] for module in ours_of(f"from hogwild_local import {name}")} == rooms


@pytest.mark.parametrize("asked", [HELP, HELP.replace("--help", "--version")])
def test_help_and_version_import_no_command(asked: str) -> None:
    assert ours_of(asked) == {"cli", "cli.main", "cli.terminal", "errors"}


def test_a_command_imports_no_other_one() -> None:
    commands = {f"cli.{name}" for name in ("bench", "chat", "eval", "rpc_server", "run", "runahead", "serve")}
    assert commands & ours_of("from hogwild_local.cli.main import command; command('run')") == {"cli.run"}


@pytest.mark.parametrize(
    ("code", "used"),
    [
        ("from hogwild_local import Model, SharedCache, Sampler", set()),
        (HELP, set()),
        ("from hogwild_local import Hogwild, Chat", {"jinja2"}),
    ],
)
def test_what_few_need_is_not_imported(code: str, used: set[str]) -> None:
    assert loaded_by(code) & RARE == used


WITHOUT_POSIX = """
import os, select, signal, socket
import llama_cpp._ggml, rich.live, uvicorn.config, starlette.applications, markdown_it, nh3, concurrent.futures.thread
for name in ("fcntl", "termios", "tty", "pty", "resource", "readline", "pwd", "grp", "mpi4py"):
    sys.modules[name] = None
of_posix = {
    os: "fork register_at_fork sched_getaffinity tcgetpgrp getpgrp geteuid getuid mkfifo killpg setsid uname",
    signal: "SIGHUP SIGTSTP SIGKILL SIGCONT SIGWINCH SIGUSR1 SIGPIPE SIGALRM SIGSTOP pthread_sigmask setitimer alarm",
    socket: "AF_UNIX",
}
for module, names in of_posix.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
def select_sockets(*given):
    raise OSError("An operation was attempted on something that is not a socket")
select.select = select_sockets
"""


def test_the_package_is_imported_and_works_where_there_is_no_posix() -> None:
    """As on Windows: no fork, no terminals, no Unix sockets; select knows sockets only."""
    code = """
import importlib, pkgutil, hogwild_local
sys.platform = "win32"
for module in pkgutil.walk_packages(hogwild_local.__path__, "hogwild_local."):
    if module.name != "hogwild_local.evaluation.math_server":  # an extra, and a process of its own
        importlib.import_module(module.name)
from click.testing import CliRunner
from hogwild_local.cli.main import cli
sys.stdin = open(0)
print(cli(["run", "-n", "40", "--seed", "1"], standalone_mode=False))
for arguments in (["serve", "--unix", "socket"], ["run", "--runahead", "2"]):
    print(CliRunner().invoke(cli, arguments).output)
"""
    done = run_isolated(HIDE + WITHOUT_POSIX + code, "none.at.all", stdin="a=27+58")
    assert done.returncode == 0, done.stderr
    assert "Answer: a85" in done.stdout, done.stderr
    assert "unix: this system has no Unix sockets" in done.stdout
    assert "no Unix sockets, through which ranks are reached" in done.stdout


COMMANDS = ["", "run", "chat", "eval", "bench", "rpc-server", "runahead", "runahead bench", "runahead tune"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_nothing_that_is_compiled(command: str) -> None:
    code = f"from hogwild_local.cli.main import cli; cli({[*command.split(), '--help']!r}, prog_name='hogwild')"
    done = run_isolated(HIDE + code, HIDDEN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: hogwild {command}".rstrip())


ASK = """
from hogwild_local import Model
try:
    Model("any.gguf", isolate=sys.argv[2] == "True")
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize(
    ("stub", "said"), [("raise ImportError('hidden')", "hidden"), ("__version__ = '0.0.1'", "0.0.1")]
)
def test_a_model_says_which_llama_cpp_it_needs(stub: str, said: str, isolate: bool, tmp_path: Path) -> None:
    (tmp_path / "llama_cpp.py").write_text(stub)
    done = run_isolated("sys.path.insert(0, sys.argv[1])" + ASK, tmp_path, isolate)
    assert said in done.stdout, done.stderr
    assert "needs llama-cpp-python" in done.stdout
    assert "same CMAKE_ARGS" in done.stdout  # of a build for a GPU, which is not to be replaced by one for the CPU
    assert "--force-reinstall" not in done.stdout


def test_a_model_says_what_to_do_where_nothing_is_compiled() -> None:
    done = run_isolated(HIDE + ASK, "hogwild_local.engine._hogwild", False)
    assert "Build hogwild-local again" in done.stdout, done.stderr
