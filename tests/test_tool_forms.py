"""Calls of tools in each family's form: what is read of made-up texts, and what the grammar for them lets through."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from held import accepts, at_random

from hogwild_local import Model
from hogwild_local.errors import InvalidArgument
from hogwild_local.forms.call_grammar import grammar_of_calls
from hogwild_local.forms.calls import Call, Family, Tags
from hogwild_local.forms.families import FAMILIES
from hogwild_local.forms.reading import read_calls
from hogwild_local.forms.tools import checked_tools
from hogwild_local.forms.writing import written

Load = Callable[..., Model]
BY_NAME = {family.name.split(",")[0]: family for family in FAMILIES}

SCHEMAS: dict[str, dict[str, Any]] = {
    "look": {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "kind": {"type": "string", "enum": ["old", "new"]}},
        "required": ["n"],
    },
    "stop-all": {"type": "object", "properties": {}},
}
WEATHER: dict[str, dict[str, Any]] = {
    "weather": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "hours": {"type": "array"}},
        "required": ["city"],
    }
}
ROME = {"city": "Rome, Italy", "days": 2}

# As the families' templates and llama.cpp's parsers have them, with what models leave out, or add.
TEXTS: list[tuple[str, str, list[dict[str, Any]]]] = [
    (
        "Hermes",
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome, Italy", "days": 2}}\n</tool_call>',
        [ROME],
    ),
    ("Hermes", '<tool_call>{"arguments":{"city":"Rome, Italy","days":2},"name":"weather"}</tool_call>', [ROME]),
    ("Hermes", '<tool_call>{"name": "weather", "arguments": "{\\"city\\": \\"Rome, Italy\\", \\"days\\": 2}"}', [ROME]),
    (
        "Hermes",
        '<tool_call>\n{"name": "weather", "arguments": {"city": "a"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "weather", "arguments": {"city": "b"}}\n</tool_call>',
        [{"city": "a"}, {"city": "b"}],
    ),
    (
        "Qwen3-Coder",
        "<tool_call>\n<function=weather>\n<parameter=city>\nRome, Italy\n</parameter>\n"
        "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>",
        [ROME],
    ),
    ("Qwen3-Coder", "<function=weather>\n<parameter=city>\n 7\n\n</parameter>\n</function>", [{"city": " 7\n"}]),
    (
        "GLM 4.5 to 4.7",
        "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Rome, Italy</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>",
        [ROME],
    ),
    (
        "GLM 4.5 to 4.7",
        "<tool_call>weather<arg_key>hours</arg_key><arg_value>[1]</arg_value></tool_call>",
        [{"hours": [1]}],
    ),
    ("Mistral", '[TOOL_CALLS]weather[ARGS]{"city": "Rome, Italy", "days": 2}', [ROME]),
    (
        "Mistral Nemo",
        '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Rome, Italy", "days": 2}, "id": "123456789"}]',
        [ROME],
    ),
    ("Mistral (list)", '[TOOL_CALLS] [{"name":"weather","arguments":{"city":"Rome, Italy","days":2}}]', [ROME]),
    ("Llama 3", '{"name": "weather", "parameters": {"city": "Rome, Italy", "days": 2}}', [ROME]),
    ("Llama 3", '<|python_tag|>{"name": "weather", "parameters": {"city": "Rome, Italy", "days": 2}}', [ROME]),
    ("Llama 3", '{"type": "function", "name": "weather", "parameters": {"city": "a"}}', [{"city": "a"}]),
    (
        "gpt-oss",
        '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Rome, Italy", "days": 2}',
        [ROME],
    ),
    ("gpt-oss", ' to=functions.weather<|channel|>commentary json<|message|>{"city": "a"}', [{"city": "a"}]),
    (
        "DeepSeek R1 and V3",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"  # noqa: RUF001
        '{"city": "Rome, Italy", "days": 2}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',  # noqa: RUF001
        [ROME],
    ),
    (
        "DeepSeek V3.2",
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="weather">\n'  # noqa: RUF001
        '<｜DSML｜parameter name="city" string="true">Rome, Italy</｜DSML｜parameter>\n'  # noqa: RUF001
        '<｜DSML｜parameter name="days" string="false">2</｜DSML｜parameter>\n'  # noqa: RUF001
        "</｜DSML｜invoke>\n</｜DSML｜function_calls>",  # noqa: RUF001
        [ROME],
    ),
    ("LFM2", "<|tool_call_start|>[weather(city='Rome, Italy', days=2)]<|tool_call_end|>", [ROME]),
    (
        "LFM2",
        '<|tool_call_start|>[weather(city="a]", days=-1), weather(city="b", hours=[true, null])]<|tool_call_end|>',
        [{"city": "a]", "days": -1}, {"city": "b", "hours": [True, None]}],
    ),
    ("Gemma 4", '<|tool_call>call:weather{city:<|"|>Rome, Italy<|"|>,days:2}<tool_call|>', [ROME]),
    (
        "Gemma 4",
        '<|tool_call>call:weather{city:<|"|>{a:1}<|"|>, hours:[1.5,{x:null}, true]}<tool_call|>',
        [{"city": "{a:1}", "hours": [1.5, {"x": None}, True]}],
    ),
    (
        "Kimi K2",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>"
        '{"city": "Rome, Italy", "days": 2}<|tool_call_end|><|tool_calls_section_end|>',
        [ROME],
    ),
    ("Granite 3", '<|tool_call|>[{"name": "weather", "arguments": {"city": "Rome, Italy", "days": 2}}]', [ROME]),
]


@pytest.mark.parametrize(
    ("name", "text", "arguments"), TEXTS, ids=lambda value: value[:14] if isinstance(value, str) else ""
)
def test_calls_are_read_as_the_family_writes_them(name: str, text: str, arguments: list[dict[str, Any]]) -> None:
    said, calls = read_calls(text, BY_NAME[name], WEATHER)
    assert said == ""
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [("weather", each) for each in arguments]
    if not BY_NAME[name].forms[0].opens.startswith("{") or "<|python_tag|>" in text:
        said, calls = read_calls(f"I look.\n{text}", BY_NAME[name], WEATHER)
        assert (said, len(calls)) == ("I look.\n", len(arguments))


@pytest.mark.parametrize("value", ["NaN", "1e999", "-Infinity", "9" * 5000])
def test_numbers_that_are_none_of_json_make_no_call(value: str) -> None:
    text = f'<tool_call>{{"name": "weather", "arguments": {{"city": {value}}}}}</tool_call>'
    assert read_calls(text, BY_NAME["Hermes"], WEATHER) == (text, [])


def test_half_a_character_in_arguments_is_written_so_that_it_can_be_sent() -> None:
    text = '<tool_call>{"name": "weather", "arguments": {"city": "\\ud800"}}</tool_call>'
    assert read_calls(text, BY_NAME["Hermes"], WEATHER)[1] == [Call("weather", '{"city": "\\ud800"}')]


def test_a_call_that_is_the_whole_reply_is_none_in_the_middle_of_prose() -> None:
    text = 'Write {"name": "weather", "parameters": {"city": "a"}} to call it.'
    assert read_calls(text, BY_NAME["Llama 3"], WEATHER) == (text, [])


def cut_off(text: str) -> list[str]:
    """Where the arguments are not complete."""
    return [text[: text.index("Rome") + n] for n in (0, 4)]


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, text, calls in TEXTS if calls == [ROME]], ids=lambda value: value[:14]
)
def test_what_is_cut_off_is_no_call(name: str, text: str) -> None:
    for part in cut_off(text):
        assert read_calls(part, BY_NAME[name], WEATHER) == (part, [])


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("text", ["", "Nothing is called.", "{", "[(", "<tool_call>", '{"name": 5}', "call:", "\ud800"])
def test_other_texts_stay_texts(text: str, family: Family) -> None:
    openings = [form.opens for form in family.forms]
    for whole in (
        text,
        *(opens + text for opens in openings),
        *(form.first + form.head + text for form in family.forms),
    ):
        assert read_calls(whole, family, WEATHER) == (whole, [])


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_deep_nesting_ends_nothing(family: Family) -> None:
    for form in family.forms:
        for bracket in ("[", "{", "(", '{"a":', "{a:", "-"):
            text = f"{form.first}{form.head}weather{form.middle}" + bracket * 20_000
            assert read_calls(text, family, WEATHER)[1] == []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_whatever_the_grammar_lets_through_is_a_call_of_a_tool_there_is(
    family: Family, seed: int, single: Load
) -> None:
    """Tokens at random; Gemma's arguments are held to their syntax only, as by llama.cpp."""
    grammar = grammar_of_calls(family, SCHEMAS, parallel=True, waits=False)
    text = at_random(single("llama"), grammar.text, seed)
    assert text is not None
    said, calls = read_calls(text, family, SCHEMAS)
    assert said == ""
    assert calls
    for call in calls:
        made = json.loads(call.arguments)
        assert call.name in SCHEMAS
        if family.forms[0].arguments != "gemma":
            assert isinstance(made["n"], int) if call.name == "look" else made == {}
            assert made.get("kind", "old") in ("old", "new")


def in_its_form(family: Family, form: int, arguments: dict[str, Any]) -> str:
    """A call of look as it is written."""
    of = family.forms[form]
    match of.arguments:
        case Tags() as tags:
            pairs = [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in arguments.items()]
            texts = [str(isinstance(value, str)).lower() for value in arguments.values()]
            made = "".join(
                f"{tags.open}{key}{tags.middle.replace('{is_text}', text)}{value}{tags.close}"
                for (key, value), text in zip(pairs, texts, strict=True)
            )
        case "python":
            made = ", ".join(f"{key}={json.dumps(value)}" for key, value in arguments.items())
        case "gemma":
            return f'{of.head}look{{n:5,kind:<|"|>new<|"|>}}{of.tail}'
        case _:
            made = json.dumps(arguments)
    text = f"{of.first}{of.head}look{of.middle}{made}{of.tail}{of.last}"
    return text.replace("{id}", "abc123XYZ").replace("{index}", "0")


CASES = [(family, form) for family in FAMILIES for form in range(len(family.forms))]


@pytest.mark.parametrize(("family", "form"), CASES, ids=lambda value: getattr(value, "name", value))
def test_a_lazy_grammar_takes_prose_and_then_a_call_as_the_family_writes_it(
    family: Family, form: int, single: Load
) -> None:
    model = single("llama")
    grammar = grammar_of_calls(family, SCHEMAS, parallel=True, waits=True)
    call = in_its_form(family, form, {"n": 5, "kind": "new"})
    before = "" if family.forms[form].only_first else "I look at it.\n"
    assert accepts(model, grammar.text, f"{before}{call}", grammar.triggers)
    assert accepts(model, grammar.text, "I need none.", grammar.triggers)
    assert read_calls(f"{before}{call}", family, SCHEMAS) == (before, [Call("look", '{"n": 5, "kind": "new"}')])
    assert not accepts(model, grammar.text, f"{before}{call.replace('look', 'peek')}", grammar.triggers) or before == ""
    if family.forms[form].arguments != "gemma":
        assert not accepts(model, grammar.text, f"{before}{call.replace('5', 'five')}", grammar.triggers)
        assert not accepts(model, grammar.text, f"{before}{call.replace('new', 'fresh')}", grammar.triggers)
    alone = grammar_of_calls(family, SCHEMAS, parallel=False, waits=True)
    assert accepts(model, alone.text, f"{before}{call}", alone.triggers)
    assert not accepts(model, alone.text, f"{before}{call}\n{call}", alone.triggers)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family.marks], ids=lambda family: family.name)
def test_what_is_written_for_a_template_that_shows_no_calls_is_read_back(family: Family) -> None:
    calls = [Call("look", '{"n": 5, "kind": "a\\"b"}'), Call("stop-all", "{}")]
    assert read_calls(written(family, calls), family, SCHEMAS) == ("", calls)


def test_strings_between_tags_stand_as_they_are(single: Load) -> None:
    family = BY_NAME["Qwen3-Coder"]
    grammar = grammar_of_calls(family, WEATHER, parallel=False, waits=False)
    city = 'a "quoted" <b>\n\n</par'
    text = f"<tool_call>\n<function=weather>\n<parameter=city>\n{city}\n</parameter>\n</function>\n</tool_call>"
    assert accepts(single("llama"), grammar.text, text)
    assert json.loads(read_calls(text, family, WEATHER)[1][0].arguments) == {"city": city}


def tool(name: object = "look", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


@pytest.mark.parametrize(
    ("tools", "choice", "fault"),
    [
        ("look", "auto", "a list of dicts"),
        ([{"name": "look"}], "auto", "a dict of type function"),
        ([tool(5)], "auto", "a name is"),
        ([tool("look it up")], "auto", "a name is"),
        ([tool(), tool()], "auto", "given twice"),
        ([tool(parameters=5)], "auto", "schema of an object"),
        ([tool(parameters={"type": "array"})], "auto", "schema of an object"),
        ([tool(description={1, 2})], "auto", "written as JSON"),
        ([tool()], "always", "tool_choice must be"),
        ([tool()], {"type": "function", "function": {"name": "peek"}}, "no tool 'peek'"),
        ([], "required", "there are no tools"),
        (None, {"type": "function", "function": {"name": "look"}}, "there are no tools"),
    ],
)
def test_bad_tools_are_refused_by_what_is_wrong(tools: Any, choice: Any, fault: str) -> None:
    with pytest.raises(InvalidArgument, match=fault):
        checked_tools(tools, choice, True)


def test_parameters_that_are_no_schema_are_named() -> None:
    tools = checked_tools([tool(parameters={"properties": {"a": {"type": "colour"}}})], "auto", True)
    assert tools
    with pytest.raises(InvalidArgument, match="tools: the parameters of look: schema: Unrecognized"):
        tools.grammar(BY_NAME["Hermes"])
