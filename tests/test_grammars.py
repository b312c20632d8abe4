"""Grammars: JSON schemas as such, and grammars that wait for a trigger."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from held import accepts, at_random

from hogwild_local import Model, Sampler, SamplingParams
from hogwild_local.errors import InvalidArgument
from hogwild_local.forms.response import grammar_of
from hogwild_local.forms.rules import MOST_TIMES, Rules, literal

Load = Callable[..., Model]


def of_schema(schema: Mapping[str, Any]) -> str:
    grammar = grammar_of({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}})
    assert grammar is not None
    return grammar


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


TREE = an_object(tree={"$ref": "#/$defs/tree"}) | {
    "$defs": {"tree": {"type": ["object", "null"], "properties": {"kid": {"$ref": "#/$defs/tree"}}}}
}

# Each was wrong, or impossible, in the converter as it comes: that is said behind it.
VALUES: list[tuple[dict[str, Any], list[Any], list[Any]]] = [
    (an_object(a={"const": 'x\\y"z'}), [{"a": 'x\\y"z'}], [{"a": "xyz"}]),  # quotes broke the grammar
    ({"enum": ["a\\n", "é", 1, None]}, ["a\\n", "é", 1, None], ["a\n", "e", 2]),  # escapes said something else
    (an_object(**{'k"ey': {"type": "integer"}}), [{'k"ey': 3}], [{"key": 3}]),
    # A part was taken for another rule of its name.
    (
        {**an_object(n={"type": "integer"}, m={"$ref": "#/$defs/integer"}), "$defs": {"integer": {"type": "boolean"}}},
        [{"n": 1, "m": True}],
        [{"n": 1, "m": 2}],
    ),
    (
        {"$ref": "#/$defs/tree", "$defs": TREE["$defs"]},  # what stands beside it was not read
        [None, {"kid": {}}],
        [{"other": 1}, 5],
    ),
    (TREE, [{"tree": None}, {"tree": {"kid": {"kid": None}}}], [{"tree": {"other": 1}}]),  # properties were forgotten
    ({"type": "string", "maxLength": 1000}, ["a" * 1000, ""], ["a" * 1001]),  # nested too deep to be parsed
    ({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 600}, [[True] * 600], [[True]]),
    ({"type": "array", "items": {"type": "integer"}, "maxItems": 2}, [[], [1], [1, 2]], [[1, 2, 3]]),
    ({"type": "array", "items": {"type": "null"}, "maxItems": 0}, [[]], [[None]]),
    (an_object(any={}, all=True), [{"any": [1, {"x": None}], "all": "y"}], [{"any": 1}]),  # an object, or an error
    ({"type": "array", "items": {}}, [[1, "a"]], [1]),
    ({"type": "number"}, [1, -2.5, 1e99, 1e-05], [10**400]),
    ({"type": "string", "pattern": "^a{2}b?$"}, ["aa", "aab"], ["a", "aabb"]),
    ({"type": "string", "pattern": "^\\d{3}-[\\dx]\\w*$"}, ["123-x", "123-4_a"], ["12-x", "123-y"]),
    (
        {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}, "required": ["b"]},
        [{"b": None}, {"b": None, "a": None}],
        [{}, {"a": None}],
    ),
]

# What docs/forms.md says is held.
VALUES += [
    ({"type": "object", "additionalProperties": {"type": "integer"}}, [{}, {"a": 1, "b": 2}], [{"a": "b"}]),
    ({**an_object(a={"type": "null"}), "additionalProperties": False}, [{"a": None}], [{"a": None, "b": 1}]),
    ({**an_object(a={"type": "null"}), "additionalProperties": True}, [{"a": None, "b": [1]}], [{"b": 1}]),
    ({"type": "array", "prefixItems": [{"type": "null"}, {"type": "boolean"}]}, [[None, True]], [[True], [True, None]]),
    ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, [None, 5], [True]),
    ({"oneOf": [{"const": "a"}, {"const": 2}]}, ["a", 2], ["b", "2"]),
    (
        {
            "allOf": [an_object(a={"type": "null"}), {"$ref": "#/$defs/more"}],
            "$defs": {"more": an_object(b={"const": 1})},
        },
        [{"a": None, "b": 1}],
        [{"a": None}, {"b": 1}],
    ),
    ({"type": ["string", "null"], "enum": ["x", None]}, ["x", None], ["y"]),
    ({"type": "string", "minLength": 2}, ["ab", "abc"], ["a"]),
    ({"type": "string", "format": "date"}, ["2026-07-31"], ["2026-13-01", "today"]),
    ({"type": "string", "format": "time"}, ["23:59:00Z"], ["24:00:00Z"]),
    ({"type": "string", "format": "date-time"}, ["2026-07-31T08:00:00.123+02:00"], ["2026-07-31"]),
    ({"type": "string", "format": "uuid"}, ["01234567-89ab-cdef-0123-456789abcdef"], ["0123"]),
]


@pytest.mark.parametrize(("schema", "good", "bad"), VALUES, ids=lambda value: json.dumps(value)[:40])
def test_a_schema_holds_what_it_says(schema: dict[str, Any], good: list[Any], bad: list[Any], single: Load) -> None:
    model, grammar = single("llama"), of_schema(schema)
    for value in good:
        assert accepts(model, grammar, json.dumps(value, ensure_ascii=False)), value
    for value in bad:
        assert not accepts(model, grammar, json.dumps(value, ensure_ascii=False)), value


@pytest.mark.parametrize("text", ["1e999", "-1E+100", ".5", "01"])
def test_a_number_is_one_that_can_be_read(text: str, single: Load) -> None:
    assert not accepts(single("llama"), of_schema({"type": "number"}), text)


@pytest.mark.parametrize("text", ['"a\nb"', '"\x01"', '"\x7f"', '"\\x"', '"a'])
def test_a_string_of_json_holds_no_control_character(text: str, single: Load) -> None:
    assert not accepts(single("llama"), of_schema({"type": "string"}), text)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_a_schema_lets_through_is_of_it(seed: int, single: Load) -> None:
    schema = an_object(
        kind={"enum": ["a", 'b"', 3]},
        n={"type": "integer"},
        rows={"type": "array", "items": {"type": "string", "maxLength": 9}, "minItems": 1, "maxItems": 3},
        word={"type": "string", "pattern": "^[xyz]{2,4}.$"},
        maybe={"anyOf": [{"type": "null"}, an_object(day={"type": "string", "format": "date"})]},
    )
    text = at_random(single("llama"), of_schema(schema), seed)
    assert text is not None
    made = json.loads(text)
    assert list(made) == ["kind", "n", "rows", "word", "maybe"]
    assert made["kind"] in ("a", 'b"', 3)
    assert isinstance(made["n"], int)
    assert all(isinstance(row, str) and len(row) <= 9 for row in made["rows"])
    assert 1 <= len(made["rows"]) <= 3
    assert 3 <= len(made["word"]) <= 5
    assert made["maybe"] is None or len(made["maybe"]["day"]) == 10


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


BAD_SCHEMAS: list[tuple[Any, str]] = [
    ({"type": "colour"}, "Unrecognized schema"),
    ({"$ref": "https://example.com/schema.json"}, "only a part of the schema itself"),
    ({"properties": {"a": {"items": {"$ref": "http://example.com"}}}}, "only a part of the schema itself"),
    ({"$ref": "#/$defs/missing"}, "missing"),
    ({"type": "string", "pattern": "abc"}, "must start with"),
    ({"type": "string", "pattern": "^(ab$"}, "schema: "),
    ({"type": "array", "items": {}, "minItems": 10**9}, f"minItems must be 0 to {MOST_TIMES}"),
    ({"type": "string", "maxLength": -1}, "maxLength must be"),
    ({"type": "array", "items": {}, "minItems": 3, "maxItems": 2}, "not fewer than the least"),
    ({"type": "string", "pattern": "^a{99999999}$"}, f"at most {MOST_TIMES}"),
    ({"properties": {"a": 5}}, "a schema is an object"),
    ({"enum": 5}, "schema: "),
    ({"enum": []}, "enum must not be empty"),
    ({"properties": {"a": {"anyOf": []}}}, "anyOf must not be empty"),
    (nested(5000), "nested too deep"),
]


@pytest.mark.parametrize(
    ("schema", "fault"), BAD_SCHEMAS, ids=lambda value: value[:20] if isinstance(value, str) else ""
)
def test_a_bad_schema_is_refused_by_what_is_wrong(
    schema: Any, fault: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is fetched, and nothing printed."""

    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("somebody looks into the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    with pytest.raises(InvalidArgument, match=fault):
        of_schema(schema)
    assert capfd.readouterr() == ("", "")


def test_the_converter_of_others_stays_as_it_is() -> None:
    from llama_cpp import llama_grammar

    before = llama_grammar.json_schema_to_gbnf('{"type": "string"}')
    of_schema({"type": "string"})
    assert llama_grammar.json_schema_to_gbnf('{"type": "string"}') == before
    assert llama_grammar._build_repetition.__module__ == "llama_cpp.llama_grammar"


@pytest.mark.parametrize("end", ["</p>", "<a<a<b", "aab", "x", "^-]\\"])
def test_a_text_goes_up_to_its_first_end(end: str, single: Load) -> None:
    rules = Rules()
    grammar = rules.text(f"{rules.until(end, 'text')} {literal('!')}")
    model = single("llama")
    for before in ("", "some text", end[:-1] + "?", end[:1] * 3, end[: len(end) // 2] * 2):
        inside = (before + end).index(end)
        assert accepts(model, grammar, before + end + "!") == (inside == len(before)), before
    assert not accepts(model, grammar, "no end")
    assert not accepts(model, grammar, f"{end}{end}!")


# -- triggers --

CALL = 'root ::= "<call>" [0-9]+ "</call>"'


def test_a_grammar_with_triggers_holds_from_the_first_of_them_on(single: Load) -> None:
    model = single("llama")
    for text in ("anything <at> all", "so: <call>12</call>", "<call>7</call>"):
        assert accepts(model, CALL, text, ["<call>"]), text
    for text in ("so: <call>x</call>", "<call>12</call> and more", "<call>12"):
        assert not accepts(model, CALL, text, ["<call>"]), text
    either = 'root ::= ("<a>" | "<b+>") [0-9]'
    assert accepts(model, either, "see <b+>5", ["<a>", "<b+>"])  # the plus is no repeat
    assert not accepts(model, either, "see <b+>x", ["<a>", "<b+>"])


def test_a_trigger_may_end_inside_of_a_token_whose_rest_is_refused(single: Load) -> None:
    """llama.cpp throws then, and would end the process with the next token."""
    model = single("llama")
    grammar = 'root ::= "a t" ("x" | "y")'
    sampler = Sampler(model, SamplingParams(temperature=0.0, grammar=grammar, grammar_triggers=["a t"]))
    written = ""
    # The likeliest ones first: of them, those are taken that are allowed.
    for likely in (["a"], [" the", " to", " "], ["the", "t"], ["z", "y"]):
        logits = np.zeros(model.n_vocab, dtype=np.float32)
        for rank, text in enumerate(likely):
            [token] = model.tokenize(text, add_special=False)
            logits[token] = 10.0 - rank
        written += model.token_bytes(sampler.sample(logits)).decode()
    assert written == "a ty"
    assert model.is_eog(sampler.sample(logits))


@pytest.mark.parametrize("seed", range(20))
def test_tokens_at_random_never_break_a_grammar_with_triggers(seed: int, single: Load) -> None:
    """Short triggers, which random text holds, and often in the middle of a token."""
    model = single("llama")
    grammar = 'root ::= ("e" | " t" | "n") [0-9] "."'
    text = at_random(model, grammar, seed, ["e", " t", "n"])
    assert text is not None
    if any(trigger in text for trigger in ("e", " t", "n")):
        assert re.search(r"(e| t|n)[0-9]\.$", text)


@pytest.mark.parametrize("triggers", [[""], [5], ["a\0"], ["\ud800"], ["a" * 257]])
def test_a_trigger_is_a_text(triggers: list[Any], single: Load) -> None:
    with pytest.raises(InvalidArgument, match="grammar_triggers"):
        Sampler(single("llama"), SamplingParams(grammar=CALL, grammar_triggers=triggers))


def test_a_sampler_that_begins_anew_waits_anew(single: Load) -> None:
    model = single("llama")
    sampler = Sampler(model, SamplingParams(temperature=0.0, grammar='root ::= "!" "a"', grammar_triggers=["!"]))
    wanted = np.zeros(model.n_vocab, dtype=np.float32)
    [mark], [other] = model.tokenize("!", add_special=False), model.tokenize("z", add_special=False)
    wanted[mark], wanted[other] = 1.0, 2.0
    for _ in range(2):
        assert sampler.sample(wanted) == other
        sampler.sample(np.eye(1, model.n_vocab, mark, dtype=np.float32)[0])
        assert sampler.sample(wanted) != other
        sampler.reset()
