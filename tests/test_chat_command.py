"""hogwild chat: lines of a user, and what they do."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fakes import FakeEngine
from terminals import Terminal

from hogwild_local.cli.lines import Lines
from hogwild_local.cli.main import cli


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
    messages: list[dict[str, str]] = json.loads((folder / "saved.json").read_text())["messages"]
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
    assert "hogwild: workers 3\nhogwild: layout interleaved\n" in lines


def test_a_worker_has_its_role_from_the_next_turn_on() -> None:
    fake, lines = FakeEngine(), "one\n/role Bob: doubt it\ntwo\n/role Ann\nthree\n"
    options = [
        "chat",
        "-m",
        "m.gguf",
        "-n",
        "2",
        "--reply-tokens",
        "4",
        "--worker",
        "Ann: be: brief",
        "--worker",
        "Bob",
    ]
    result = CliRunner().invoke(cli, options, obj=fake.engine, input=lines)
    assert "workers Ann: be: brief; Bob: doubt it\n" in result.stderr
    assert "workers Ann; Bob: doubt it\n" in result.stderr
    assert fake.cache
    fed = [(feed.names[-1], fake.model.text(feed.tokens)) for feeds in fake.cache.passes for feed in feeds]
    roles = [(name, "be: brief" in text, "doubt it" in text) for name, text in fed if name.startswith("role")]
    ann, bob = ("role 0", True, False), ("role 1", False, True)
    assert roles == [ann, ann, bob, bob]


def test_a_turn_can_be_said_again_or_taken_back(tmp_path: Path) -> None:
    assert len(messages_of("one", "two", "/regen", folder=tmp_path)) == 4
    messages = messages_of("one", "two", "/undo", "three", folder=tmp_path)
    assert [message["content"] for message in messages[::2]] == ["one", "three"]


def test_a_message_that_is_refused_is_not_said_again() -> None:
    lines = '"""\na=01+02\nb=a+03\n"""\nHello\n/regen\n'
    result = CliRunner().invoke(cli, ["chat", "-t", "1", "-w", "1"], input=lines)  # the embedded model cannot read it
    assert result.stderr.count("no tokens for") == 1
    assert result.stdout.count("Answer: ") == 2


def test_a_copy_goes_its_own_way(tmp_path: Path) -> None:
    assert len(messages_of("one", "/fork", "two", folder=tmp_path)) == 4
    assert len(messages_of("one", "/fork", "two", "/back", folder=tmp_path)) == 2


def test_a_conversation_is_saved_as_markdown_with_the_thoughts_of_each_turn(tmp_path: Path) -> None:
    talk("one", "two", f"/save {tmp_path / 'saved.md'}")
    titles = [line for line in (tmp_path / "saved.md").read_text().splitlines() if line.startswith("#")]
    turn = ["## User", "## Thoughts of Alice and Bob", "### Alice, step 1", "### Bob, step 1", "### How it ended"]
    assert titles == [*turn, "## Assistant"] * 2


def test_thoughts_are_those_of_the_turns_that_are_left(tmp_path: Path) -> None:
    def after(*lines: str) -> list[int]:
        talk(*lines, f"/save {tmp_path / 'saved.json'}")
        return [run["after"] for run in json.loads((tmp_path / "saved.json").read_text())["runs"]]

    assert after("one", "two") == [1, 3]
    assert after("one", "two", "/undo") == [1]
    assert after("one", "two", "/regen") == [1, 3]
    assert after("one", "/fork", "two", "/back") == [1]
    assert after("one", "/fork", "two") == [1, 3]


def test_thoughts_of_the_last_turn_are_shown_again() -> None:
    lines = talk("one", "/workers 1", "two", "/thoughts").stdout.splitlines()
    assert lines.count("Alice, step 1") == 1
    assert "Bob, step 1" not in lines


def test_a_message_of_several_lines_stands_between_quotes(tmp_path: Path) -> None:
    messages = messages_of('"""one', "  /two", 'three"""', '"""four"""', folder=tmp_path)
    assert [message["content"] for message in messages[::2]] == ["one\n  /two\nthree", "four"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/nothing", "there is no /nothing"),
        ("/workers many", "wants a number"),
        ("/workers ²", "wants a number"),
        ("/workers 0", "workers"),
        ("/role Eve: x", "of one of Alice, Bob"),
        ("/role", "names must be non-empty"),
        ("/layout x", "/layout wants one of combined, interleaved, contiguous, not 'x'"),
        ("/undo", "no turn to take back"),
        ("/thoughts", "no thoughts yet"),
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
    for name in (
        "workers",
        "role",
        "layout",
        "regen",
        "undo",
        "fork",
        "back",
        "thoughts",
        "save",
        "help",
        "quit",
        "stop",
    ):
        assert f"/{name}" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_lines_are_kept_and_completed_where_readline_is_editline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on macOS: it cannot append to a file, and has other words for keys."""
    asked: list[tuple[object, ...]] = []

    class Editline:
        """With libedit."""

        def __getattr__(self, name: str) -> Callable[..., None]:
            if name == "append_history_file":
                raise AttributeError(name)
            return lambda *given: asked.append((name, *given))

    class Stdin:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("hogwild_local.cli.lines._readline", Editline)
    monkeypatch.setattr("sys.stdin", Stdin())
    monkeypatch.setattr("builtins.input", lambda prompt: "one")
    history = tmp_path / "history"
    typed = Lines(["/help"], history)
    assert [given for name, *given in asked if name == "parse_and_bind"] == [["bind ^I rl_complete"]]
    asked.clear()
    assert typed.next() == "one"
    assert ("write_history_file", str(history)) in asked


# -- on a terminal --

LONG = '"a" * 10**5, "b" * 10**5'


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    with contextlib.ExitStack() as stack:

        def begin(*arguments: str, scripts: str = LONG) -> Terminal:
            options = ["chat", "-m", "m.gguf", "--reply-tokens", "4", *arguments]
            return stack.enter_context(Terminal(*options, scripts=scripts, XDG_STATE_HOME=str(tmp_path)))

        yield begin


def test_ctrl_c_ends_the_turn_and_not_the_program(chat: Callable[..., Terminal]) -> None:
    terminal = chat("-n", "100000")
    before = terminal.settings
    terminal.until("/help")
    terminal.type("one\n")
    terminal.until("pass 3")
    terminal.interrupt()
    terminal.until("hogwild: stopped; what was said before stands, and /regen tries again\n>")
    terminal.type("/regen\n")
    terminal.until("pass 3")
    terminal.interrupt()
    terminal.until("hogwild: stopped", times=2)
    terminal.type("/quit\n")
    assert terminal.ended() == 0
    assert terminal.settings == before


def test_ctrl_c_in_a_reply_keeps_what_there_is_of_it(chat: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = chat("-n", "2", "--reply-tokens", "100000", "--plain")
    terminal.until("/help")
    terminal.type("one\n")
    terminal.until("Bob: [budget]")
    time.sleep(0.2)
    terminal.interrupt()
    terminal.until("hogwild: stopped; the reply so far stands")
    terminal.type(f"/save {tmp_path / 'saved.json'}\n")
    terminal.until("2 messages are in")
    terminal.type("/quit\n")
    assert terminal.ended() == 0
    assert json.loads((tmp_path / "saved.json").read_text())["messages"][1]["content"]


def test_a_worker_can_be_stopped_while_they_work_and_what_is_not_entered_is_the_next_line(
    chat: Callable[..., Terminal],
) -> None:
    terminal = chat("-n", "100000")
    terminal.until("/help")
    terminal.type("one\n")
    terminal.until("pass 3")
    terminal.type("/hello\n")
    terminal.until("while they work: a line is said to all")
    terminal.until("> /hello")  # it was not taken
    terminal.type("\x15/stop Nobody\n")
    terminal.until("worker must be one of Alice, Bob")
    terminal.type("\x15/stop Bob\n")
    terminal.until("Bob writes no more")
    terminal.until("Bob [stopped]")
    terminal.type("/wor")
    terminal.until("> /wor")
    terminal.interrupt()
    terminal.until("/regen tries again\n> /wor")
    terminal.type("kers x\n")
    terminal.until("wants a number, not 'x'")
    terminal.type("/qu\t\n")  # Tab completes it
    assert terminal.ended() == 0


def test_a_line_that_is_typed_while_they_work_is_said_to_them(chat: Callable[..., Terminal]) -> None:
    terminal = chat("-n", "100000")
    terminal.until("/help")
    terminal.type("one\n")
    terminal.until("pass 3")
    terminal.type("Look twice.\n")
    terminal.until("You ")
    terminal.until("Look twice.")
    terminal.type("@Nobody are you there?\n")
    terminal.until("they are Alice, Bob")
    terminal.type("\x15@Bob, and you once.\n")
    terminal.until("and you once.")
    terminal.type("/add Carol\n")
    terminal.until("Carol step 1")
    terminal.interrupt()
    terminal.until("stopped;")
    terminal.type("/thoughts\n")
    terminal.until("\nYou\n", times=2)


def test_a_paste_of_several_lines_is_one_message(chat: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = chat("-n", "2", "--reply-tokens", "2")
    terminal.until("/help")
    terminal.until_written(b"\x1b[?2004h", times=1)  # then terminals put these around what is pasted
    terminal.type("\x1b[200~one\ntwo\x1b[201~\n")
    terminal.until("tokens/s;")
    terminal.type(f"/save {tmp_path / 'saved.json'}\n")
    terminal.until("2 messages are in")
    assert json.loads((tmp_path / "saved.json").read_text())["messages"][0]["content"] == "one\ntwo"


def test_lines_are_kept_for_the_next_conversation_and_read_by_nobody_else(
    chat: Callable[..., Terminal], tmp_path: Path
) -> None:
    for arguments in ((), ("--no-history",)):
        terminal = chat(*arguments)
        terminal.until("/help")
        terminal.type("/layout combined\n")
        terminal.until("layout combined\n")
        terminal.type("/quit\n")
        assert terminal.ended() == 0
    file = tmp_path / "hogwild-local" / "chat-history"
    assert file.read_text() == "/layout combined\n/quit\n"
    assert file.stat().st_mode & 0o077 == 0
    terminal = chat()
    terminal.until("/help")
    terminal.type("\x1b[A\x1b[A\n")  # twice the arrow up
    terminal.until("hogwild: layout combined")
