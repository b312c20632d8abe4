"""The command line, with a fake engine that enters by the context's object."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from documents import command_of
from fakes import FakeCache, FakeEngine

from hogwild_local.cli import terminal
from hogwild_local.cli.main import cli
from hogwild_local.engine.devices import Device
from hogwild_local.errors import ModelError

FAKE_PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from fakes import FakeEngine
from hogwild_local.cli.main import cli
import time
fake = FakeEngine("One.\\n\\nTwo" + "o" * 10**5, "Three" + "e" * 10**5)
fake.on_decode = lambda cache: time.sleep(0.01)
cli(obj=fake.engine, prog_name="hogwild")
"""

LOADED = "hogwild: context 8192 tokens\n"


def hogwild(fake: FakeEngine, *arguments: str, stdin: str | None = None, **env: str) -> Result:
    return CliRunner().invoke(cli, arguments, obj=fake.engine, input=stdin, env=env)


def run(*arguments: str, stdin: str | None = None, **env: str) -> Result:
    fake = FakeEngine("Hi.\n\nso \\boxed{4}", "b" * 30)
    return hogwild(fake, "run", "-m", "m.gguf", "-n", "30", *arguments, stdin=stdin, **env)


def test_without_a_terminal_lines_begin_with_the_workers_name() -> None:
    result = run("2+2?")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert all(line.startswith(("Alice: ", "Bob: ", "reply: ")) for line in lines[:-3])
    assert any(line.startswith("reply: ") for line in lines)
    assert lines[-3] == "Answer: 4"
    assert re.fullmatch(r"Ended: an answer was found\b.* Seed: \d+", lines[-2])
    assert "tokens/s" in lines[-1]
    assert result.stderr == LOADED


def test_json_is_one_event_a_line_and_nothing_else() -> None:
    result = run("--json", "2+2?")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert (events[0]["event"], events[-1]["event"]) == ("run_started", "run_ended")
    assert events[-1]["answer"] == "4"
    assert result.stderr == ""


def test_workers_can_be_counted_or_named() -> None:
    assert json.loads(run("--json", "--workers", "3", "P").stdout.splitlines()[0])["workers"] == [
        "Alice",
        "Bob",
        "Carol",
    ]
    named = run("--json", "--worker", "Ann", "--worker", "Ben Jr: doubts", "P", HOGWILD_RUN_WORKERS="5")
    assert json.loads(named.stdout.splitlines()[0])["workers"] == ["Ann", "Ben Jr"]
    assert run("--workers", "2", "--worker", "Ann", "P").exit_code == 2


def test_options_reach_engine_and_run() -> None:
    fake = FakeEngine()
    result = hogwild(
        fake, "run", "-m", "m.gguf", "-n", "3", "--ctx", "4000", "--threads", "2", "--n-gpu-layers", "-1",
        "--temp", "0.5", "--top-k", "7", "--type-k", "f32", "--layout", "contiguous", "--seed", "9",
        "--batch", "64", "--no-finisher", "--json", "--lora", "a.gguf:0.5", "--lora", "b.gguf",
        "--control-vector", "c.gguf:-1", "P",
    )  # fmt: skip
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert (events[0]["layout"], events[0]["seed"], events[0]["n_ctx"]) == ("contiguous", 9, 4000)
    assert events[-1]["timings"]["passes"] == 3
    assert fake.model_arguments["n_threads"] == 2
    assert fake.model_arguments["n_gpu_layers"] == -1
    assert fake.model_arguments["lora"] == (("a.gguf", 0.5), ("b.gguf", 1.0))
    assert fake.model_arguments["control_vectors"] == (("c.gguf", -1.0),)
    assert fake.cache
    assert (fake.cache.type_k, fake.cache.n_batch) == ("f32", 64)
    assert (fake.samplers[0].params.temperature, fake.samplers[0].params.top_k) == (0.5, 7)


def test_every_option_has_an_environment_variable() -> None:
    result = run("--json", "P", HOGWILD_RUN_SEED="77", HOGWILD_RUN_LAYOUT="interleaved")
    started = json.loads(result.stdout.splitlines()[0])
    assert (started["seed"], started["layout"]) == (77, "interleaved")


def test_a_bad_environment_variable_is_an_error() -> None:
    result = run("P", HOGWILD_RUN_MAX_PASSES="many", HOGWILD_RUN_SEED="x")
    assert result.exit_code == 2
    assert "--seed" in result.stderr


def test_the_same_seed_repeats_a_run() -> None:
    def words(seed: str) -> list[str]:
        lines = hogwild(FakeEngine(), "run", "-m", "m.gguf", "-n", "9", "--seed", seed, "P").stdout
        return [line for line in lines.splitlines() if line.startswith(("Alice", "Bob"))]

    assert words("3") == words("3")
    assert words("3") != words("4")


@pytest.mark.parametrize("command", ["run", "eval", "bench"])
def test_every_command_that_loads_a_model_takes_the_options_of_devices(command: str) -> None:
    names = {name for option in command_of(command).params for name in option.opts}
    assert {"--n-gpu-layers", "--rpc", "--tensor-split", "--split-mode", "--main-gpu"} <= names


def test_only_bench_cannot_isolate_and_says_what_that_means() -> None:
    taken = [name for name in cli.commands if "--isolate" in str([p.opts for p in command_of(name).params])]
    assert sorted(taken) == ["chat", "eval", "run", "serve"]
    assert "aborts the command" in " ".join(CliRunner().invoke(cli, ["bench", "--help"]).stdout.split())


def test_the_prompt_comes_from_the_argument_a_file_or_stdin(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("from a file", encoding="utf-8")
    for arguments, stdin, text in (
        (["direct"], None, "direct"),
        (["-f", str(path)], None, "from a file"),
        (["-f", "-"], "piped in", "piped in"),
    ):
        fake = FakeEngine()
        hogwild(fake, "run", "-m", "m.gguf", "-n", "1", *arguments, stdin=stdin)
        assert fake.cache
        fed = fake.model.text([token for feeds in fake.cache.passes for feed in feeds for token in feed.tokens])
        assert text in fed


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ([], "PROMPT or --file"),
        (["-f", "-", "P"], "not both"),
        (["--workers", "0", "P"], "--workers"),
        (["--layout", "diagonal", "P"], "--layout"),
        (["--ctx", "x", "P"], "--ctx"),
        (["--unknown", "P"], "--unknown"),
        (["-f", "none.txt"], "none.txt"),
        (["--worker", "A", "--worker", "A", "P"], "'A' is given twice"),
        (["--temp", "nan", "P"], "temperature"),
        (["--prompts", "none.toml", "P"], "none.toml"),
        ([" "], "prompt must not be empty"),
    ],
)
def test_wrong_usage_exits_with_2_and_names_the_fault(arguments: list[str], fault: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert fault in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_missing_model_is_one_line_and_exit_code_1() -> None:
    result = hogwild(FakeEngine(), "run", "-m", "missing.gguf", "P")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == ["hogwild: missing.gguf: no such file"]


def test_a_prompt_that_does_not_fit_is_one_line_and_exit_code_1() -> None:
    result = run("--ctx", "50", "P")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 2
    assert "50 are free" in result.stderr


def test_without_model_the_embedded_one_is_used_and_one_line_says_so() -> None:
    fake = FakeEngine()
    result = hogwild(fake, "run", "-n", "1", "P")
    assert fake.model_arguments["path"] == Path("embedded.gguf")
    assert result.stderr.endswith(LOADED)
    assert len(result.stderr.splitlines()) == 2
    assert "embedded" in result.stderr


def test_ctrl_c_shows_what_there_was_frees_everything_and_exits_with_130() -> None:
    fake = FakeEngine("abcdef", "uvwxyz")

    def interrupt(cache: FakeCache) -> None:
        if len(cache.passes) >= 10:
            raise KeyboardInterrupt

    fake.on_decode = interrupt
    result = hogwild(fake, "run", "-m", "m.gguf", "P")
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr
    assert result.stdout.startswith("Alice: ")
    assert fake.n_open == 0
    assert fake.model.closed


def test_help_lists_each_command_in_a_line() -> None:
    listed = CliRunner().invoke(cli, ["--help"], env={"COLUMNS": "80"}).stdout.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == sorted(cli.commands)
    assert all(re.fullmatch(r"  [a-z-]+ +[A-Z].*[^.]\.", line) for line in listed), "three dots: it is cut off"
    assert all(command_of(name).name == name for name in cli.commands)


def test_on_a_terminal_ctrl_c_leaves_it_usable() -> None:
    master, slave = pty.openpty()
    process = start("run", "-m", "m.gguf", "P", stdin=slave, stdout=slave)
    os.close(slave)
    seen = everything_read(master, until=b"pass ")
    process.send_signal(signal.SIGINT)
    seen += everything_read(master)
    os.close(master)
    assert process.wait(10) == 130
    assert b"Traceback" not in seen
    assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l") > 0
    assert b"tokens/s" in seen[seen.rfind(b"\x1b[?25h") :]


def start(*arguments: str, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """The fake program in a process of its own; what it writes takes minutes, unless it is ended."""
    program = FAKE_PROGRAM.format(tests=str(Path(__file__).parent))
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    command = [sys.executable, "-P", "-c", program, *arguments]
    return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stdout, env=environment)


def everything_read(master: int, until: bytes = b"") -> bytes:
    """What comes from a terminal, to its end or until something was seen."""
    seen, deadline = b"", time.monotonic() + 30
    while not (until and until in seen) and time.monotonic() < deadline:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # the other side is gone
            break
        if not chunk:
            break
        seen += chunk
    return seen


def test_sigterm_leaves_the_terminal_as_it_was() -> None:
    master, slave = pty.openpty()
    process = start("run", "-m", "m.gguf", "P", stdin=slave, stdout=slave)
    os.close(slave)
    seen = everything_read(master, until=b"pass ")
    process.terminate()
    seen += everything_read(master)
    os.close(master)
    assert process.wait(10) == 128 + signal.SIGTERM
    assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l") > 0
    assert b"tokens/s" in seen[seen.rfind(b"\x1b[?25h") :]
    assert b"Traceback" not in seen


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_standard_input_that_is_a_pipe_or_a_file_is_the_prompt(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("one two three", encoding="utf-8")
    arguments = ("run", "-m", "m.gguf", "-n", "1", "--no-finisher", "--json")
    if kind == "file":
        with path.open() as file:
            out, _ = start(*arguments, stdin=file.fileno()).communicate(timeout=30)
    else:
        out, _ = start(*arguments, stdin=subprocess.PIPE).communicate(path.read_bytes(), timeout=30)
    without, _ = start(*arguments, "P").communicate(timeout=30)
    prompts = [json.loads(lines.splitlines()[0])["prompt_tokens"] for lines in (out, without)]
    assert prompts[0] - prompts[1] == len("one two three") - len("P")


@pytest.mark.parametrize("stdin", [subprocess.DEVNULL, subprocess.PIPE])
def test_without_a_prompt_an_input_that_says_nothing_is_none(stdin: int) -> None:
    process = start("run", "-m", "m.gguf", stdin=stdin)
    out, err = process.communicate(b"" if stdin == subprocess.PIPE else None, timeout=30)
    assert (process.returncode, out) == (2, b"")
    assert b"PROMPT or --file" in err


def test_a_prompt_is_taken_as_it_is_whatever_standard_input_holds() -> None:
    process = start("run", "-m", "m.gguf", "-n", "1", "P", stdin=subprocess.PIPE)  # nobody writes, nobody closes it
    assert process.wait(30) == 0
    process.communicate()


def test_the_embedded_model_says_what_to_do_with_a_question_that_it_cannot_read() -> None:
    for text in ("What is 6*7?", "Hello"):
        result = CliRunner().invoke(cli, ["run", "-t", "1", text])
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "no tokens for" in result.stderr
        assert "--model" in result.stderr
        assert "no prompt" in result.stderr


def test_an_absurd_number_of_workers_is_refused_at_once() -> None:
    result = run("-w", "100000000", "P")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "n_batch" in result.stderr


ESCAPE = "\x1b]0;gotcha\x07\x9b31m"
STYLE_KEY = f'"a{ESCAPE}" = 1\n'.replace("\x1b", "\\u001b").replace("\x07", "\\u0007").replace("\x9b", "\\u009b")


@pytest.mark.parametrize(
    ("metadata", "where"),
    [
        ({"hogwild.examples": json.dumps([f"2+2{ESCAPE}?"])}, "2+2"),
        ({"hogwild.prompts": STYLE_KEY}, "unknown key a"),
        ({"general.sampling.temp": ESCAPE}, "general.sampling.temp"),
        ({"hogwild.examples": f"[{ESCAPE}"}, "hogwild.examples"),
    ],
    ids=["example", "key", "number", "json"],
)
def test_no_text_of_a_model_reaches_the_terminal_with_its_escapes(metadata: dict[str, str], where: str) -> None:
    fake = FakeEngine("a" + ESCAPE, "b")
    fake.model.metadata = metadata
    result = hogwild(fake, "run", "-m", "m.gguf", "-n", "20", "--plain")
    assert where in result.stderr
    assert not set("\x1b\x07\x9b") & set(result.stdout + result.stderr)


@pytest.mark.parametrize("fault", [ModelError, ImportError])
def test_no_error_reaches_the_terminal_with_escapes(fault: type[Exception]) -> None:
    fake = FakeEngine()
    fake.on_decode = lambda cache: (_ for _ in ()).throw(fault(f"architecture {ESCAPE}"))
    result = hogwild(fake, "run", "-m", "m.gguf", "P")
    assert result.exit_code == 1
    assert "architecture" in result.stderr
    assert not set("\x1b\x07\x9b") & set(result.stderr)


def test_only_these_modules_write() -> None:
    """Whoever writes elsewhere could forget printable(). Benchmarks write JSON, to a file;
    machine.py prints numbers, to the process that asked for them."""
    folder = Path(inspect.getfile(terminal)).parent
    writes = re.compile(r"click\.s?echo|\bprint\(|\.write\(")
    found = {path.name for path in folder.glob("*.py") if writes.search(path.read_text())}
    assert found == {"terminal.py", "display.py", "report.py", "bench.py", "runahead_bench.py", "machine.py"}


def test_help_shows_groups_and_each_line_explains() -> None:
    for name, titles in (
        ("run", ["Model", "Workers", "Sampling", "Output", "Devices", "Other"]),
        ("eval", ["Model", "Workers", "Sampling", "Evaluation", "Output", "Devices", "Other"]),
        ("bench", ["Model", "Measurement", "Output", "Devices", "Other"]),
        ("runahead bench", ["Model", "Measurement", "Output", "Devices", "Other"]),
    ):
        text = CliRunner().invoke(cli, [*name.split(), "--help"]).stdout
        assert re.findall(r"^(\w+):$", text, flags=re.MULTILINE) == titles
        for param in command_of(name).params:
            if isinstance(param, click.Option):
                assert re.fullmatch(r"[A-Z].*\.", param.help or ""), f"{name} {param.opts}: {param.help}"
                assert param.opts[-1] in text


def test_version_is_ours_and_that_of_llama_cpp_python() -> None:
    result = CliRunner().invoke(cli, ["--version"])
    ours, theirs = (importlib.metadata.version(name) for name in ("hogwild-local", "llama-cpp-python"))
    assert result.stdout == f"hogwild-local {ours}, llama-cpp-python {theirs}\n"


def test_what_is_not_on_the_cpu_is_said_on_load() -> None:
    fake = FakeEngine()
    assert hogwild(fake, "run", "-m", "m.gguf", "-n", "1", "P").stderr == LOADED
    fake.model.devices = [Device("CUDA0", "a GPU", layers=(0, 1), weight_bytes=2**20)]
    assert "CUDA0 (a GPU): layers 0-1" in hogwild(fake, "run", "-m", "m.gguf", "-n", "1", "P").stderr


def test_a_warning_is_one_line() -> None:
    fake = FakeEngine()
    fake.model.n_ctx_train = 100
    result = hogwild(fake, "run", "-m", "m.gguf", "-n", "1", "--ctx", "4000", "P")
    assert result.exit_code == 0
    assert len(result.stderr.splitlines()) == 2
    assert "trained" in result.stderr


def test_pace_waits_once_a_pass_and_without_it_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    assert run("-n", "6", "--no-finisher", "P").exit_code == 0
    assert waits == []
    assert run("-n", "6", "--no-finisher", "--pace", "0.01", "P").exit_code == 0
    assert [round(wait, -2) for wait in waits] == [100, 200, 300, 400, 500, 600]
