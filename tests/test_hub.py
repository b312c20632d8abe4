"""Models from the Hugging Face Hub: which file is meant, that it comes whole and once, and what is said where it does
not. The server is on this machine."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from documents import command_of
from fakes import FakeEngine
from hub_server import Hub, serving

from hogwild_local import Hogwild
from hogwild_local.cli.main import cli
from hogwild_local.errors import InvalidArgument
from hogwild_local.hub import chosen, parse_repo

needs_hub = pytest.mark.skipif(
    importlib.util.find_spec("huggingface_hub") is None, reason="needs huggingface_hub: pip install '.[hub]'"
)
FETCH = """
import sys
from hogwild_local.hub import downloaded, parse_repo
try:
    print(downloaded(*parse_repo(sys.argv[1])))
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""
OF_PRETRAINED = """
from hogwild_local import Hogwild
with Hogwild.from_pretrained("user/tiny", quant="q4_k_m", n_ctx=4096, n_threads=1) as hw:
    print(hw.n_ctx, hw.model.path)
"""


# -- which file is meant ------------------------------------------------------------------------------------------

FILES = ["README.md", "m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-IQ4_XS.gguf", "mmproj-Q4_K_M.gguf", "m.imatrix.gguf"]
SPLIT = [f"BF16/m-BF16-{i:05}-of-00003.gguf" for i in (3, 1, 2)]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("user/repo", ("user/repo", None, None)),
        ("user/repo:", ("user/repo", None, None)),
        ("user/repo:q4_k_m", ("user/repo", "q4_k_m", None)),
        ("user/repo:m-Q4_K_M.gguf", ("user/repo", None, "m-Q4_K_M.gguf")),
    ],
)
def test_a_repository_is_written_as_for_llama_cpp(text: str, parsed: tuple[str, str | None, str | None]) -> None:
    assert parse_repo(text) == parsed


@pytest.mark.parametrize(
    ("names", "quant", "filename", "first"),
    [
        (FILES, None, None, "m-Q4_K_M.gguf"),
        ([*SPLIT, "m-Q8_0.gguf"], None, None, "m-Q8_0.gguf"),
        (["z.gguf", "m-IQ4_XS.gguf"], None, None, "m-IQ4_XS.gguf"),
        (FILES, "q8_0", None, "m-Q8_0.gguf"),
        (FILES + SPLIT, "bf16", None, "BF16/m-BF16-00001-of-00003.gguf"),
        (FILES, None, "m-IQ4_XS.gguf", "m-IQ4_XS.gguf"),
        (FILES + SPLIT, None, "*BF16*", "BF16/m-BF16-00001-of-00003.gguf"),
        (["UD/m-Q4_K_M.gguf", "m.Q4_K_M.gguf"], None, "m.Q4_K_M.gguf", "m.Q4_K_M.gguf"),
    ],
)
def test_the_file_that_is_meant_is_chosen(
    names: list[str], quant: str | None, filename: str | None, first: str
) -> None:
    assert chosen("user/repo", names, quant, filename)[0] == first


def test_a_split_model_comes_with_all_parts_in_order() -> None:
    assert chosen("user/repo", SPLIT, None, None) == tuple(sorted(SPLIT))


@pytest.mark.parametrize(
    ("names", "quant", "filename", "said"),
    [
        (FILES, "Q4_K", None, "has not a file for 'Q4_K'; it has m-IQ4_XS.gguf, m-Q4_K_M.gguf, m-Q8_0.gguf$"),
        (FILES, "Q4_XS", None, "has not a file for 'Q4_XS'"),
        (FILES, None, "none*.gguf", r"has not the file 'none\*.gguf'; it has m-IQ4_XS"),
        (FILES, None, "m-*.gguf", "more than one: m-IQ4_XS.gguf, m-Q4_K_M.gguf, m-Q8_0.gguf. Name the file"),
        (["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"], None, None, "more than one: a-Q4_K_M.gguf, b-Q4_K_M.gguf"),
        (["mmproj-Q8_0.gguf", "model.safetensors"], None, None, "no GGUF file"),
        (SPLIT[:2], None, None, "no GGUF file of a model, whole"),
        ([f"m-{i}.gguf" for i in range(99)], "Q4_K_M", None, "and 69 more"),
    ],
)
def test_what_names_no_file_or_several_is_refused_and_what_there_is_listed(
    names: list[str], quant: str | None, filename: str | None, said: str
) -> None:
    with pytest.raises(InvalidArgument, match=said):
        chosen("user/repo", names, quant, filename)


# -- fetching it --------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tiny_path: Callable[..., Path]) -> Iterator[Hub]:
    model = tiny_path("llama").read_bytes()
    large = bytes(range(256)) * 100_000  # more than the library writes at once, twice
    files = {"m-Q4_K_M.gguf": model, "mmproj-m-Q4_K_M.gguf": b"no model", "README.md": b"# m"}
    split = {f"s-Q8_0-0000{i}-of-00002.gguf": bytes([i]) * 99 for i in (1, 2)}
    repos = {"user/tiny": files, "user/large": {"l.gguf": large}, "user/split": split, "user/gated": {"g.gguf": b"g"}}
    with serving(Hub(repos, gated={"user/gated"})) as made:
        yield made


@pytest.fixture
def python(hub: Hub, tmp_path: Path) -> Callable[..., str]:
    """What a Python of its own prints, whose huggingface_hub asks our server: it reads its environment once."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    environment |= {"HF_HUB_ETAG_TIMEOUT": "60", "HF_HUB_DOWNLOAD_TIMEOUT": "60"}  # a busy machine is no lost one

    def run(*arguments: str, **env: str) -> str:
        command = [sys.executable, "-P", *arguments]  # the installed package, not the folder of its sources
        done = subprocess.run(command, env=environment | env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@needs_hub
def test_a_model_is_fetched_once_and_runs_without_the_hub_afterwards(hub: Hub, python: Callable[..., str]) -> None:
    options = ["-hf", "user/tiny", "-t", "1", "-n", "5", "--seed", "1", "--no-reply", "--no-finisher", "--plain"]
    code = ["-c", "from hogwild_local.cli.main import main; main()", "run", *options, "Go."]

    def texts(said: str) -> str:
        return "\n".join(said.splitlines()[:-1])  # without the times

    first = texts(python(*code))
    assert "Alice" in first
    assert hub.fetched == ["m-Q4_K_M.gguf"]
    assert texts(python(*code)) == first
    assert texts(python(*code, HF_HUB_OFFLINE="1")) == first
    assert texts(python(*code, HF_ENDPOINT="http://127.0.0.1:9")) == first  # nobody listens there
    n_ctx, path = python("-c", OF_PRETRAINED, HF_HUB_OFFLINE="1").split()
    assert (n_ctx, Path(path).name) == ("4096", "m-Q4_K_M.gguf")
    assert hub.fetched == ["m-Q4_K_M.gguf"]


@needs_hub
def test_all_parts_of_a_split_model_are_fetched_and_its_first_is_named(hub: Hub, python: Callable[..., str]) -> None:
    path = Path(python("-c", FETCH, "user/split"))
    assert hub.fetched == ["s-Q8_0-00001-of-00002.gguf", "s-Q8_0-00002-of-00002.gguf"]
    assert path.name == hub.fetched[0]
    assert (path.parent / hub.fetched[1]).read_bytes() == b"\2" * 99


@needs_hub
def test_a_download_that_was_cut_off_goes_on_where_it_was(hub: Hub, python: Callable[..., str]) -> None:
    hub.cut.append("l.gguf")
    path = Path(python("-c", FETCH, "user/large"))
    assert path.read_bytes() == hub.repos["user/large"]["l.gguf"]
    whole, rest = hub.fetched
    assert whole == "l.gguf"
    assert int(rest.removeprefix("l.gguf bytes=").split("-")[0]) >= 10_000_000


@needs_hub
def test_a_file_that_comes_damaged_is_an_error_and_is_not_kept(hub: Hub, python: Callable[..., str]) -> None:
    hub.damaged.add("m-Q4_K_M.gguf")
    assert "ModelError: user/tiny: m-Q4_K_M.gguf came damaged" in python("-c", FETCH, "user/tiny")
    hub.damaged.clear()
    assert Path(python("-c", FETCH, "user/tiny")).read_bytes() == hub.repos["user/tiny"]["m-Q4_K_M.gguf"]


@needs_hub
def test_a_gated_repository_wants_a_token(hub: Hub, python: Callable[..., str]) -> None:
    for env in ({}, {"HF_TOKEN": "hf_wrong"}):
        assert python("-c", FETCH, "user/gated", **env).startswith("ModelError: user/gated is gated: ask for access")
    assert python("-c", FETCH, "user/gated", HF_TOKEN=hub.token).endswith("g.gguf")


@needs_hub
@pytest.mark.parametrize(
    ("repo", "env", "said"),
    [
        ("user/none", {}, "ModelError: there is no repository user/none, or it is private"),
        ("no repository", {}, "InvalidArgument: 'no repository' is no repository of the hub"),
        ("user/tiny:Q8_0", {}, "InvalidArgument: user/tiny has not a file for 'Q8_0'; it has m-Q4_K_M.gguf"),
        ("user/tiny", {"HF_HUB_OFFLINE": "1"}, "ModelError: user/tiny cannot be had from the hub: "),
        ("user/tiny", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "ModelError: user/tiny cannot be had from the hub: "),
    ],
)
def test_what_cannot_be_had_is_said(repo: str, env: dict[str, str], said: str, python: Callable[..., str]) -> None:
    assert python("-c", FETCH, repo, **env).startswith(said)


# -- the ways to it -----------------------------------------------------------------------------------------------


def test_every_command_with_a_model_takes_one_of_the_hub() -> None:
    names = [*cli.commands, "runahead bench", "runahead tune"]
    flags = [{flag for param in command_of(name).params for flag in param.opts} for name in names]
    assert sum("--model" in of for of in flags) >= 6
    assert all(("--model" in of) == ("-hf" in of) for of in flags)


@pytest.mark.parametrize("command", ["run", "chat", "bench"])
def test_two_models_are_refused(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "-m", "m.gguf", "-hf", "user/repo"], obj=FakeEngine().engine)
    assert result.exit_code == 2
    assert "either --model or --hf-repo" in result.stderr


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    result = CliRunner().invoke(cli, ["run", "-hf", "user/repo", "P"], obj=FakeEngine().engine)
    assert result.exit_code == 1
    assert "pip install 'hogwild-local[hub]'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_wrong_options_are_told_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hogwild_local.hogwild.downloaded", lambda *given: pytest.fail(f"fetched {given}"))
    with pytest.raises(InvalidArgument, match="n_ctx"):
        Hogwild.from_pretrained("user/repo", n_ctx=0)
    with pytest.raises(TypeError, match="n_tokens"):
        Hogwild.from_pretrained("user/repo", n_tokens=5)
