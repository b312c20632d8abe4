"""A reply in a form: JSON of a schema, a grammar of the user's; what else a run writes is free."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import EOS, TINY_STYLE, FakeEngine, FakeModel
from test_reply import STYLE, THINKING

from hogwild_local import Hogwild, SamplingParams
from hogwild_local import events as ev
from hogwild_local.errors import InvalidArgument

WILD = SamplingParams(temperature=2.0, top_k=0, top_p=1.0, min_p=0.0)
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}, "n": {"type": "integer"}, "ok": {"type": "boolean"}},
    "required": ["mood", "n", "ok"],
}


def of_schema(schema: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("isolate", [False, True], ids=["here", "isolated"])
def test_a_model_with_random_weights_replies_in_the_form(
    isolate: bool, seed: int, tiny_path: Callable[..., Path]
) -> None:
    with Hogwild(tiny_path("llama"), n_ctx=4096, n_threads=1, isolate=isolate) as hw:
        options: dict[str, Any] = {"max_passes": 3, "seed": seed, "sampling": WILD}
        events = list(hw.stream("Go.", response_format=of_schema(SCHEMA), **options))
        [ended] = [event for event in events if isinstance(event, ev.ReplyEnded)]
        assert ended.reason == "eos"
        made = json.loads(ended.text)
        assert sorted(made) == ["mood", "n", "ok"]
        assert made["mood"] in ("good", "bad")
        assert isinstance(made["n"], int)
        grammar = {"type": "grammar", "grammar": 'root ::= "yes, " [a-c]{3} | "no"'}
        reply = hw.generate("Go.", response_format=grammar, **options).reply
        assert reply == "no" or (reply and reply.startswith("yes, ") and len(reply) == 8)
        # The workers wrote what they write without it.
        thoughts = [hw.generate("Go.", response_format=form, **options).texts for form in (grammar, None)]
        assert thoughts[0] == thoughts[1]


def test_a_reply_that_its_budget_cuts_says_so(tiny_path: Callable[..., Path]) -> None:
    with Hogwild(tiny_path("llama"), n_ctx=4096, n_threads=1) as hw:
        events = list(
            hw.stream("Go.", max_passes=3, seed=1, reply_tokens=5, response_format=of_schema(SCHEMA), sampling=WILD)
        )
        [ended] = [event for event in events if isinstance(event, ev.ReplyEnded)]
        assert ended.reason == "length"
        with pytest.raises(json.JSONDecodeError):
            json.loads(ended.text)


def test_what_closes_the_thoughts_stands_before_the_form() -> None:
    fake = FakeEngine("ab", "cd", [*b"{}", EOS], model=FakeModel(THINKING))
    with Hogwild("m.gguf", prompts=STYLE, engine=fake.engine) as hw:
        result = hw.generate("P", max_passes=2, response_format={"type": "json_object"})
        assert result.reply == "{}"
        *workers, reply = [sampler.params for sampler in fake.samplers if not sampler.is_finisher]
    assert fake.cache
    opening = next(feeds[0] for feeds in fake.cache.passes if feeds[0].names[-1] == "reply")
    assert fake.model.text(opening.tokens) == "\n</think>\n\n"
    assert all(params.grammar is None for params in workers)
    assert reply.grammar is not None
    assert reply.grammar_triggers == ()


def test_text_is_free() -> None:
    fake = FakeEngine("ab", "cd", [*b"Well.", EOS])
    with Hogwild("m.gguf", prompts=STYLE, engine=fake.engine) as hw:
        assert hw.generate("P", max_passes=2, response_format={"type": "text"}).reply == "Well."
        assert all(sampler.params.grammar is None for sampler in fake.samplers)


@pytest.mark.parametrize(("says", "answer"), [('{"a": 1}', '{"a": 1}'), ('{"a": 12345678', None)])
def test_where_no_reply_follows_the_finishers_answer_has_the_form(says: str, answer: str | None) -> None:
    fake = FakeEngine("ab", "cd", finisher=says + "<eos>" * (answer is not None))
    with Hogwild("m.gguf", prompts=TINY_STYLE, engine=fake.engine) as hw:
        result = hw.generate("P", max_passes=2, finisher_tokens=9, response_format={"type": "json_object"})
        assert result.answer == answer
        assert result.finisher == says[:9]
        assert fake.samplers[-1].params.grammar is not None


BAD: list[tuple[Any, str]] = [
    (5, "response_format must be a dict whose type is one of text, json_object, json_schema, grammar"),
    ({"type": "xml"}, "whose type is one of"),
    ({"type": "json_object", "schema": {}}, "unknown key 'schema'"),
    ({"type": "json_schema"}, "json_schema must be a dict of name and schema"),
    ({"type": "json_schema", "json_schema": {"schema": 5}}, "json_schema must be a dict of name and schema"),
    ({"type": "json_schema", "json_schema": {"schema": {}, "sort": 1}}, "unknown key 'sort'"),
    (of_schema({"type": "colour"}), "response_format: schema: Unrecognized schema"),
    ({"type": "grammar"}, "grammar must be a text"),
    ({"type": "grammar", "grammar": "root ::= ("}, "the form of the reply: the grammar cannot be parsed"),
    ({"type": "grammar", "grammar": 'first ::= "a"'}, "does not contain a 'root' symbol"),
    ({"type": "grammar", "grammar": 'root ::= root "a"'}, "left recursion"),
]


@pytest.mark.parametrize(("form", "fault"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_form_is_refused_before_anything_is_computed(
    form: Any, fault: str, tiny_path: Callable[..., Path]
) -> None:
    with Hogwild(tiny_path("llama"), n_ctx=256, n_threads=1) as hw:
        with pytest.raises(InvalidArgument, match=fault):
            hw.stream("Go.", response_format=form)
        assert hw.n_free == hw.n_ctx
