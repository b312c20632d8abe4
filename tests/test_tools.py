"""Tools: what the prompt shows, what a reply calls, how a conversation goes on with results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fakes import EOS, TEMPLATE, FakeEngine, FakeModel
from test_reply import STYLE

from hogwild_local import Hogwild, Model, SamplingParams
from hogwild_local import events as ev
from hogwild_local.cli.display import PlainOutput
from hogwild_local.cli.main import cli
from hogwild_local.cli.saved import save
from hogwild_local.errors import InvalidArgument

TOOL_TEMPLATE = (
    "{% if tools %}T={{ tools | tojson }};{% endif %}{% for m in messages %}{{ m.role[0] }}={{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>\n{{ {'name': c.function.name, 'arguments': c.function.arguments} "
    "| tojson }}\n</tool_call>{% endfor %}{% if m.name %}({{ m.name }}){% endif %};{% endfor %}"
)
PARAMETERS = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
LOOK = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": PARAMETERS}}
STOP = {"type": "function", "function": {"name": "stop"}}
CALL = '<tool_call>\n{"name": "look", "arguments": {"n": 5}}\n</tool_call>'


def hogwild(*says: str, template: str = TOOL_TEMPLATE, **options: Any) -> tuple[FakeEngine, Hogwild]:
    """Two workers, and what replies say; a run that follows plays the next one."""
    model = FakeModel(template)
    scripts = [[*model.tokenize(text, add_special=False, parse_special=True), EOS] for text in says]
    fake = FakeEngine("ab", "cd", scripts[0], model=model)
    return fake, Hogwild("m.gguf", prompts=options.pop("prompts", STYLE), engine=fake.engine, **options)


def events(says: str, template: str = TOOL_TEMPLATE, **options: Any) -> tuple[FakeEngine, list[ev.Event]]:
    fake, hw = hogwild(says, template=template)
    with hw:
        got = list(hw.stream("P", max_passes=2, seed=1, **{"tools": [LOOK, STOP], **options}))
        assert fake.n_open == 0
    return fake, got


def said(of: list[ev.Event]) -> str:
    shown = "".join(event.text for event in of if isinstance(event, ev.ReplyToken))
    assert [event.text for event in of if isinstance(event, ev.ReplyEnded)] == [shown]
    return shown


def calls(of: list[ev.Event]) -> list[tuple[str, str]]:
    return [(event.name, event.arguments) for event in of if isinstance(event, ev.ToolCall)]


def test_a_call_is_an_event_and_no_part_of_what_is_said() -> None:
    _, got = events(f"I look.\n{CALL}")
    assert said(got) == "I look.\n"
    assert calls(got) == [("look", '{"n": 5}')]
    kinds = [type(event) for event in got]
    assert kinds.index(ev.ToolCall) < kinds.index(ev.ReplyEnded)
    _, got = events("I need none: 3 < 5.")
    assert (said(got), calls(got)) == ("I need none: 3 < 5.", [])


def test_no_part_of_a_call_is_ever_shown_as_it_streams() -> None:
    _, got = events(f"So < I {CALL}\n{CALL}")
    assert [event.text for event in got if isinstance(event, ev.ReplyToken) and "<t" in event.text] == []
    assert len(calls(got)) == 2


def test_each_call_has_an_identifier_of_its_own_which_a_repeated_run_has_too() -> None:
    def ids(says: str) -> list[str]:
        return [event.id for event in events(says)[1] if isinstance(event, ev.ToolCall)]

    assert ids(f"{CALL}{CALL}") == ids(f"{CALL}{CALL}")
    assert len({*ids(f"{CALL}{CALL}")}) == 2
    assert all(len(each) == 9 and each.isalnum() for each in ids(CALL))  # as Mistral's templates want it


def test_a_call_that_is_cut_off_is_told_as_what_was_said() -> None:
    cut = CALL[:-20]
    _, got = events(f"So: {CALL}", reply_tokens=len("So: ") + len(cut))
    assert (said(got), calls(got)) == (f"So: {cut}", [])
    assert [event.reason for event in got if isinstance(event, ev.ReplyEnded)] == ["length"]


def test_the_prompt_shows_the_tools() -> None:
    fake, _ = events("No.")
    assert fake.cache
    shown = "".join(text for feed in fake.cache.passes[-1] for text in feed.before)
    assert "T=" in shown
    assert json.loads(shown.partition("T=")[2].partition(";u=")[0].partition(";s=")[0]) == [LOOK, STOP]


def grammar(**options: Any) -> tuple[str | None, list[str]]:
    """Of the reply."""
    fake, _ = events("No.", **options)
    params = fake.samplers[-1].params
    assert all(sampler.params.grammar is None for sampler in fake.samplers[-3:-1])  # the workers
    return params.grammar, list(params.grammar_triggers)


def test_a_choice_says_what_may_be_called() -> None:
    text, triggers = grammar()
    assert triggers == ["<tool_call>"]
    assert text
    assert "call-look" in text
    assert "call-stop" in text
    assert grammar(tool_choice="required") == (text, [])
    text, triggers = grammar(tool_choice={"type": "function", "function": {"name": "stop"}})
    assert triggers == []
    assert text
    assert "call-look" not in text
    assert grammar(tool_choice="none") == (None, [])
    assert grammar(parallel_tool_calls=False) != grammar()


def test_where_none_may_be_called_text_stays_text() -> None:
    _, got = events(CALL, tool_choice="none")
    assert (said(got), calls(got)) == (CALL, [])


HARMONY = (
    "{% if tools %}T={{ tools | tojson }};{% endif %}{% for m in messages %}<|start|>{{ m.role }}"
    "{% for c in m.tool_calls or [] %} to=functions.{{ c.function.name }}<|channel|>commentary json<|message|>"
    "{{ c.function.arguments | tojson }}<|call|>{% endfor %}<|channel|>final<|message|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}{# <|channel|>analysis<|message|> #}"
)


@pytest.mark.parametrize(
    ("says", "shown", "called"),
    [
        ("<|channel|>final<|message|>Yes.", "Yes.", []),
        ("Yes.", "Yes.", []),
        ('<|channel|>commentary to=functions.look <|constrain|>json<|message|>{"n": 1}', "", [("look", '{"n": 1}')]),
        ("<|channel|>f", "<|channel|>f", []),
    ],
)
def test_where_answers_have_a_heading_of_their_own_a_call_may_stand_in_its_place(
    says: str, shown: str, called: list[tuple[str, str]]
) -> None:
    _, got = events(says, template=HARMONY)
    [opened] = [event.text for event in got if isinstance(event, ev.ReplyStarted)]
    assert opened == "<|end|><|start|>assistant"
    assert (said(got), calls(got)) == (shown, called)


def test_names_of_control_tokens_count_as_text_of_calls() -> None:
    """Mistral's [TOOL_CALLS] is one; here it is </think>, which has no bytes either."""
    template = TOOL_TEMPLATE.replace("<tool_call>\n", "[TOOL_CALLS][").replace("\n</tool_call>", "]")
    fake, hw = hogwild('</think>{"name": "look", "arguments": {"n": 5}}]', template=template)
    with hw:
        names = fake.model.token_text
        fake.model.token_text = lambda token: "[TOOL_CALLS][" if token == 259 else names(token)  # type: ignore[method-assign]
        result = hw.generate("P", max_passes=2, tools=[LOOK])
    assert [call.name for call in result.tool_calls] == ["look"]
    assert result.reply == ""


TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "Look!"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "a1", "type": "function", "function": {"name": "look", "arguments": '{"n": 5}'}}],
    },
    {"role": "tool", "tool_call_id": "a1", "content": "Seen."},
]


@pytest.mark.parametrize("as_dict", [False, True])
@pytest.mark.parametrize("has_content", [False, True])
def test_messages_with_calls_and_results_are_rendered(as_dict: bool, has_content: bool) -> None:
    fake, hw = hogwild("Well.")
    talk = json.loads(json.dumps(TALK))
    if as_dict:
        talk[1]["tool_calls"][0]["function"]["arguments"] = {"n": 5}
    if not has_content:
        del talk[1]["content"]
    with hw:
        assert hw.generate(talk, max_passes=2).reply == "Well."
        assert fake.cache
        shown = "".join(text for feed in fake.cache.passes[-1] for text in feed.before)
    assert "u=Look!" in shown
    assert f"a={CALL.replace('5}}', '5}}')}" in shown
    assert "t=Seen.(look)" in shown


def test_calls_stand_in_the_transcript_and_in_its_files_and_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, hw = hogwild(f"I look.{CALL}")
    with hw, PlainOutput() as output:
        for event in hw.stream("Look!", max_passes=2, seed=1, tools=[LOOK]):
            output.feed(event)
    assert capsys.readouterr().out.count('reply: I look.\nreply: [calls look with {"n": 5}]\n') == 1
    [call] = output.transcript.tool_calls
    assert (call.name, call.arguments) == ("look", '{"n": 5}')
    for name in ("run.json", "run.md"):
        save(tmp_path / name, [*TALK[:1], output.transcript.message, TALK[2]], {1: output.transcript})
    saved = json.loads((tmp_path / "run.json").read_text())
    assert saved["messages"][1]["tool_calls"] == [call.in_message()]
    assert saved["runs"][0]["tool_calls"] == [{"id": call.id, "name": "look", "arguments": '{"n": 5}'}]
    said = '## Assistant\n\nI look.\n\nCalls look with {"n": 5}\n\n## Tool\n\nSeen.\n'
    assert (tmp_path / "run.md").read_text().endswith(said)


def test_a_conversation_goes_on_with_results() -> None:
    fake, hw = hogwild(f"I look.{CALL}")
    with hw:
        chat = hw.chat(tools=[LOOK], max_passes=2, seed=1)
        [call] = chat.send("Look!").result().tool_calls
        assert chat.messages[-1] == {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [{"id": call.id, "type": "function", "function": {"name": "look", "arguments": '{"n": 5}'}}],
        }
        fake.again()
        fake._scripts[2] = [*b"Seen.", EOS]
        result = {"role": "tool", "tool_call_id": call.id, "content": "a cat"}
        assert chat.send([result]).result().reply == "Seen."
        assert fake.cache
        assert "t=a cat(look)" in "".join(text for feed in fake.cache.passes[-1] for text in feed.before)
        assert [message["role"] for message in chat.messages] == ["user", "assistant", "tool", "assistant"]
        fake.again()
        assert chat.regenerate().result().reply == "Seen."
        assert len(chat.messages) == 4
        for wrong in ({"role": "tool", "content": "a cat"}, {**result, "tool_call_id": "other"}):
            with pytest.raises(InvalidArgument, match="that is no call of this conversation"):
                chat.send(wrong)
        with pytest.raises(InvalidArgument, match="no message"):
            chat.send([])
        assert len(chat.messages) == 4


@pytest.mark.parametrize(
    ("options", "template", "fault"),
    [
        ({"tools": [LOOK]}, TEMPLATE, "has no place for them"),
        ({"tools": [LOOK]}, TEMPLATE + "{{ tools | tojson }}", "how this model writes calls is not known"),
        ({"tools": [LOOK], "reply": False}, TOOL_TEMPLATE, "called by the reply, and there is none"),
        ({"tools": [LOOK], "response_format": {"type": "json_object"}}, TOOL_TEMPLATE, "cannot both hold a reply"),
        ({"tools": [LOOK], "tool_choice": "always"}, TOOL_TEMPLATE, "tool_choice must be"),
        ({"tools": [LOOK], "parallel_tool_calls": 1}, TOOL_TEMPLATE, "parallel_tool_calls must be"),
        ({"tool_choice": "required"}, TOOL_TEMPLATE, "there are no tools"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_computed(
    options: dict[str, Any], template: str, fault: str
) -> None:
    fake, hw = hogwild("", template=template)
    with hw, pytest.raises(InvalidArgument, match=fault):
        hw.stream("P", **options)
    assert fake.n_open == 0


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        (5, "a list of calls"),
        ([5], "a call is a dict"),
        ([{"id": "a", "function": {"name": 5}}], "a call is a dict"),
        ([{"id": "a", "function": {"name": "look", "arguments": "{"}}], "must be a JSON object"),
        ([{"id": "a", "function": {"name": "look", "arguments": "[]"}}], "must be a JSON object"),
        ([{"id": "a", "function": {"name": "look", "arguments": {1, 2}}}], "must be a JSON object"),
    ],
)
def test_bad_calls_in_messages_are_refused(call: object, fault: str) -> None:
    _, hw = hogwild("")
    with hw, pytest.raises(InvalidArgument, match=fault):
        hw.stream([TALK[0], {"role": "assistant", "tool_calls": call}, TALK[2]])


def test_a_template_without_a_place_for_calls_says_so() -> None:
    _, hw = hogwild("", template=TEMPLATE)
    with hw, pytest.raises(InvalidArgument, match=r"no place for calls of tools \(tool_calls\)"):
        hw.generate(TALK)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("isolate", [False, True], ids=["here", "isolated"])
def test_a_model_with_random_weights_calls_what_it_must(
    isolate: bool, seed: int, tiny_path: Callable[..., Path]
) -> None:
    wild = SamplingParams(temperature=2.0, top_k=0, top_p=1.0, min_p=0.0)
    with Model(tiny_path("llama"), n_threads=1, isolate=isolate) as model:
        model.chat_template = TOOL_TEMPLATE
        with Hogwild(model, n_ctx=4096) as hw:
            result = hw.generate(
                "Go.",
                max_passes=2,
                seed=seed,
                sampling=wild,
                tools=[LOOK],
                tool_choice="required",
                parallel_tool_calls=False,
            )
            [call] = result.tool_calls
            assert call.name == "look"
            assert isinstance(json.loads(call.arguments)["n"], int)
            assert result.reply == ""
            free = hw.generate("Go.", max_passes=2, seed=seed, reply_tokens=50, sampling=wild, tools=[LOOK])
            assert free.reply


@pytest.mark.parametrize(
    ("text", "fault"),
    [("[", "tools.json is no JSON"), ('{"a": 1}', "tools must be a list"), ('["look"]', "tools: a tool is a dict")],
)
def test_a_file_of_tools_that_are_none_is_an_error_of_the_command(text: str, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "tools.json"
    file.write_text(text)
    done = CliRunner().invoke(cli, ["run", "-m", "m.gguf", "--tools", str(file), "P"], obj=FakeEngine().engine)
    assert done.exit_code == 2
    assert fault in done.output


def test_tools_of_a_file_may_be_called_by_the_reply_of_a_command(tmp_path: Path) -> None:
    fake, hw = hogwild(CALL)
    hw.close()
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps([LOOK]))
    command = ["run", "-m", "m.gguf", "--max-passes", "2", "--no-finisher", "--tools", str(tools), "P"]
    done = CliRunner().invoke(cli, command, obj=fake.engine)
    assert done.exit_code == 0, done.output
    assert 'reply: [calls look with {"n": 5}]' in done.output
