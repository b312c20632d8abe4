"""hogwild chat: lines of a user, and what they do."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fakes import FakeEngine

from hogwild_local.cli.main import cli

FAKE_PROGRAM = """
import sys, time
sys.path.insert(0, {tests!r})
from fakes import FakeEngine
from hogwild_local.cli.main import cli
fake = FakeEngine("a" * 10**5, "b" * 10**5)
fake.on_decode = lambda cache: time.sleep(0.01)
cli(obj=fake.engine, prog_name="hogwild")
"""


def talk(*lines: str, arguments: tuple[str, ...] = ()) -> Result:
    fake = FakeEngine()
    text = "".join(f"{line}\n" for line in lines)
    options = ["chat", "-m", "m.gguf", "-n", "2", "--reply-tokens", "4", "--seed", "1", "-w", "2", *arguments]
    result = CliRunner().invoke(cli, options, obj=fake.engine, input=text)
    assert result.exit_code == 0, result.output
    assert fake.n_open == 0
    return result


def messages_of(*lines: str, folder: Path, arguments: tuple[str, ...] = ()) -> list[dict[str, str]]:
    talk(*lines, f"/save {folder / 'saved.json'}", arguments=arguments)
    messages: list[dict[str, str]] = json.loads((folder / "saved.json").read_text())
    return messages


def test_lines_are_turns_and_the_end_of_input_is_the_end(tmp_path: Path) -> None:
    messages = messages_of("one", "", "two", folder=tmp_path, arguments=("--system", "S"))
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert [messages[i]["content"] for i in (0, 1, 3)] == ["S", "one", "two"]
    assert all(len(messages[i]["content"]) == 4 for i in (2, 4))


def test_each_turn_is_shown_with_its_reply() -> None:
    lines = talk("one", "/quit", "two").stdout.splitlines()
    assert {line.partition(":")[0] for line in lines if ":" in line} >= {"Alice", "Bob", "reply"}
    assert sum("tokens/s" in line for line in lines) == 1  # /quit ended it


def test_workers_and_layout_change_from_the_next_turn_on() -> None:
    lines = talk("one", "/workers 3", "/layout interleaved", "two").output
    assert lines.count("Carol: [") == 1
    assert "workers 3, layout interleaved" in lines


def test_a_turn_can_be_said_again_or_taken_back(tmp_path: Path) -> None:
    assert len(messages_of("one", "two", "/regen", folder=tmp_path)) == 4
    messages = messages_of("one", "two", "/undo", "three", folder=tmp_path)
    assert [message["content"] for message in messages[::2]] == ["one", "three"]


def test_a_copy_goes_its_own_way(tmp_path: Path) -> None:
    assert len(messages_of("one", "/fork", "two", folder=tmp_path)) == 4
    assert len(messages_of("one", "/fork", "two", "/back", folder=tmp_path)) == 2


def test_a_conversation_is_saved_as_markdown(tmp_path: Path) -> None:
    talk("one", f"/save {tmp_path / 'saved.md'}")
    assert (tmp_path / "saved.md").read_text().startswith("## User\n\none\n\n## Assistant\n\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/nothing", "there is no /nothing"),
        ("/workers many", "wants a number"),
        ("/workers 0", "workers"),
        ("/layout x", "layout must be one of"),
        ("/undo", "no turn to take back"),
        ("/regen", "no message of the user's"),
        ("/back", "no copy"),
        ("/save", "name of a file"),
        ("/save /nowhere/x", "cannot be written"),
    ],
)
def test_a_fault_is_said_and_the_conversation_goes_on(line: str, said: str) -> None:
    result = talk(line, "one")
    assert said in result.stderr
    assert "reply: " in result.stdout


def test_help_lists_every_command() -> None:
    shown = talk("/help").stdout
    for name in ("workers", "layout", "regen", "undo", "fork", "back", "save", "help", "quit"):
        assert f"/{name}" in shown


def test_ctrl_c_ends_the_turn_and_not_the_program() -> None:
    main, other = pty.openpty()
    code = FAKE_PROGRAM.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-P", "-c", code, "chat", "-m", "m.gguf", "-n", "100000"]
    process = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, start_new_session=True)
    os.close(other)
    seen = b""

    def until(text: bytes) -> None:
        nonlocal seen
        end = time.monotonic() + 20
        while text not in seen:
            assert time.monotonic() < end, seen
            seen += os.read(main, 65536)

    try:
        until(b"> ")
        os.write(main, b"one\n")
        until(b"pass 3")
        seen = b""
        process.send_signal(signal.SIGINT)
        until(b"stopped")
        until(b"> ")
        os.write(main, b"/quit\n")
        assert process.wait(20) == 0
    finally:
        process.kill()
        os.close(main)
