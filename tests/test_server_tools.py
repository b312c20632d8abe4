"""Tools, forms and log-probabilities over the server, as the openai package reads them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import openai
import pytest
from fakes import EOS, TEMPLATE, FakeEngine, FakeModel
from server_helper import CHAT, noted_prompts, served
from test_reply import STYLE
from test_tools import CALL, LOOK, TOOL_TEMPLATE

from hogwild_local import Hogwild

ASKED: dict[str, Any] = {
    "model": "m", "messages": [{"role": "user", "content": "P"}], "tools": [LOOK], "extra_body": {"max_passes": 2},
}  # fmt: skip


def saying(*replies: str, template: str = TOOL_TEMPLATE) -> Callable[[], Hogwild]:
    """Two workers; each run has the next reply."""

    def load() -> Hogwild:
        model = FakeModel(template)
        scripts = [[*model.tokenize(text, add_special=False, parse_special=True), EOS] for text in replies]
        return Hogwild("m.gguf", prompts=STYLE, engine=FakeEngine("ab", "cd", scripts[0], model=model).engine)

    return load


def test_a_call_is_part_of_the_message() -> None:
    with served(saying(f"I look.\n{CALL}")) as server, openai.OpenAI(base_url=server.address + "/v1", api_key="-") as c:
        choice = c.chat.completions.create(**ASKED).choices[0]
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", "I look.\n")
        (call,) = choice.message.tool_calls
        assert (call.type, call.function.name, json.loads(call.function.arguments)) == ("function", "look", {"n": 5})
        assert call.id


def test_a_message_of_calls_alone_has_no_content() -> None:
    for form in ("separate", "inline"):
        with served(saying(CALL)) as server:
            body = {**ASKED, "max_passes": 2, "reasoning_format": form}
            del body["extra_body"]
            message = server.post(CHAT, body).json()["choices"][0]["message"]
            assert (message["content"] is None) == (form == "separate")
            assert len(message["tool_calls"]) == 1


def test_calls_are_streamed_as_openais() -> None:
    with (
        served(saying(f"So: {CALL}{CALL}")) as server,
        openai.OpenAI(base_url=server.address + "/v1", api_key="-") as c,
    ):
        with c.chat.completions.stream(**ASKED) as stream:
            for _ in stream:
                pass
            choice = stream.get_final_completion().choices[0]
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", "So: ")
        assert [call.function.arguments for call in choice.message.tool_calls] == ['{"n": 5}'] * 2
        assert len({call.id for call in choice.message.tool_calls}) == 2


def test_inline_thoughts_are_closed_before_a_call() -> None:
    with served(saying(CALL), "inline") as server:
        body = {**ASKED, "stream": True, "max_passes": 2}
        del body["extra_body"]
        data = [line[6:] for line in server.post(CHAT, body).text.splitlines() if line.startswith("data: {")]
        deltas = [chunk["choices"][0]["delta"] for chunk in map(json.loads, data)]
        at = next(i for i, delta in enumerate(deltas) if "tool_calls" in delta)
        assert "".join(delta.get("content", "") for delta in deltas[:at]).endswith("</think>\n\n")


FLAT = {"type": "function", **LOOK["function"]}  # type: ignore[dict-item]


def test_a_response_has_an_item_for_each_call_and_goes_on_with_its_output() -> None:
    asked: dict[str, Any] = {"model": "m", "input": "P", "tools": [FLAT], "extra_body": {"max_passes": 2}}
    with served(saying(f"I look.\n{CALL}")) as server, openai.OpenAI(base_url=server.address + "/v1", api_key="-") as c:
        messages = noted_prompts(server)
        with c.responses.stream(**asked) as events:
            kinds = [event.type for event in events]
            response = events.get_final_response()
        assert kinds.count("response.function_call_arguments.done") == 1
        call = response.output[-1]
        assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "look", {"n": 5})
        output = [{"type": "function_call_output", "call_id": call.call_id, "output": "7"}]
        c.responses.create(**{**asked, "input": output, "previous_response_id": response.id})
        whole = [{"role": "user", "content": "P"}, call.model_dump(exclude_none=True), *output]
        c.responses.create(**{**asked, "input": whole})
        for said in messages[1:]:
            assert [message["role"] for message in said] == ["user", "assistant", "tool"]
            (again,) = said[1]["tool_calls"]
            assert (again["id"], again["function"]["name"]) == (call.call_id, "look")
            assert said[2] == {"role": "tool", "tool_call_id": call.call_id, "content": "7"}


def test_a_response_that_its_budget_cuts_is_incomplete_and_a_completion_of_that_length() -> None:
    with served(saying("A long reply.")) as server:
        body = {"max_passes": 2, "max_tokens": 3, "max_output_tokens": 3, "input": "P", "messages": ASKED["messages"]}
        assert server.post(CHAT, body).json()["choices"][0]["finish_reason"] == "length"
        response = server.post("/v1/responses", body).json()
        assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}


def test_a_form_is_the_replys_on_both_routes() -> None:
    asked: list[Any] = []

    def load() -> Hogwild:
        hogwild = saying("{}")()
        stream = hogwild.stream
        hogwild.stream = lambda said, **o: (asked.append(o["response_format"]), stream(said, **o))[1]  # type: ignore[method-assign]
        return hogwild

    named = {"name": "n", "schema": SCHEMA}
    with served(load) as server:
        form = {"type": "json_schema", "json_schema": named}
        server.post(CHAT, {"messages": ASKED["messages"], "response_format": form, "max_passes": 2})
        text = {"format": {"type": "json_schema", **named}}
        server.post("/v1/responses", {"input": "P", "text": text, "max_passes": 2})
        assert asked == [form, form]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [7]}, "tools"),
        ({"tools": [LOOK], "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": [LOOK], "parallel_tool_calls": 3}, "parallel_tool_calls"),
        ({"response_format": {"type": "poem"}}, "response_format"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 99}, "logprobs"),
    ],
)
def test_wrong_ones_are_named(fields: dict[str, Any], param: str) -> None:
    with served(saying("x")) as server:
        response = server.post(CHAT, {"messages": ASKED["messages"], **fields})
        assert (response.status_code, response.json()["error"]["param"]) == (400, param), response.text


@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
def test_tools_are_left_out_for_a_model_that_cannot_call_any_unless_it_has_to(path: str) -> None:
    nested = path == CHAT
    tool = LOOK if nested else {"type": "function", **LOOK["function"]}
    body = {"messages": ASKED["messages"], "input": "P", "max_passes": 2}
    with served(saying("x", template=TEMPLATE)) as server:
        assert not server.client.get("/props").json()["can_call_tools"]
        assert server.post(path, {**body, "tools": [tool], "tool_choice": "auto"}).status_code == 200
        assert server.post(path, {**body, "tools": [tool], "tool_choice": "none"}).status_code == 200
        for wrong, named in (({"tool_choice": "required"}, "tools"), ({"tool_choice": "maybe"}, "tool_choice")):
            response = server.post(path, {**body, "tools": [tool], **wrong})
            assert (response.status_code, response.json()["error"]["param"]) == (400, named), wrong
        assert server.post(path, {**body, "tools": [7]}).status_code == 400
    with served(saying("x")) as server:
        assert server.client.get("/props").json()["can_call_tools"]


def test_log_probabilities_are_told_of_each_token_of_the_reply() -> None:
    asked = {name: value for name, value in ASKED.items() if name != "tools"}
    likely = {"logprobs": True, "top_logprobs": 2}

    def ask(how: Callable[[openai.OpenAI], Any]) -> Any:
        with served(saying("Yes.")) as server, openai.OpenAI(base_url=server.address + "/v1", api_key="-") as client:
            return how(client)

    def streamed(client: openai.OpenAI) -> list[Any]:
        chunks = client.chat.completions.create(stream=True, **asked, **likely)
        choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
        return [entry for choice in choices if choice.logprobs for entry in choice.logprobs.content]

    entries = ask(lambda client: client.chat.completions.create(**asked, **likely).choices[0].logprobs.content)
    assert "".join(entry.token for entry in entries[:4]) == "Yes."
    assert all(math.isfinite(entry.logprob) and len(entry.top_logprobs) == 2 for entry in entries)
    assert bytes(entries[0].bytes) == b"Y"
    assert [entry.model_dump() for entry in ask(streamed)] == [entry.model_dump() for entry in entries]
    body = {"model": "m", "prompt": "P", "logprobs": 2, "extra_body": {"max_passes": 2}}
    old = ask(lambda client: client.completions.create(**body).choices[0].logprobs)
    assert old.tokens == [entry.token for entry in entries]
    assert old.token_logprobs == [entry.logprob for entry in entries]


def test_those_of_a_response_are_asked_for_by_include() -> None:
    body: dict[str, Any] = {"model": "m", "input": "P", "top_logprobs": 2, "extra_body": {"max_passes": 2}}
    included = {"include": ["message.output_text.logprobs", "reasoning.encrypted_content"]}

    def ask(how: Callable[[openai.OpenAI], Any]) -> Any:
        with served(saying("Yés.")) as server, openai.OpenAI(base_url=server.address + "/v1", api_key="-") as client:
            return how(client)

    def streamed(client: openai.OpenAI) -> tuple[list[Any], Any]:
        events = list(client.responses.create(stream=True, **body, **included))
        deltas = [entry for event in events if event.type == "response.output_text.delta" for entry in event.logprobs]
        (done,) = [event for event in events if event.type == "response.output_text.done"]
        return deltas, done

    likely = {"logprobs": True, "top_logprobs": 2}
    chat = {name: value for name, value in ASKED.items() if name != "tools"}
    wanted = ask(lambda client: client.chat.completions.create(**chat, **likely).choices[0].logprobs.content)
    (part,) = ask(lambda client: client.responses.create(**body, **included).output[-1].content)
    assert [entry.model_dump() for entry in part.logprobs] == [entry.model_dump() for entry in wanted]
    assert len(part.logprobs) > 4
    deltas, done = ask(streamed)
    assert [entry.logprob for entry in done.logprobs] == [entry.logprob for entry in wanted]
    assert [entry.token for entry in deltas] == [entry.token for entry in wanted[: len(deltas)]]
    assert len(deltas) >= 4
    for asked in ({}, {"include": []}):
        (part,) = ask(lambda client, asked=asked: client.responses.create(**body, **asked).output[-1].content)
        assert part.logprobs == []
    with served(saying("x")) as server:
        assert server.post("/v1/responses", {"input": "P", "include": "all"}).json()["error"]["param"] == "include"


EFFORT = (
    "{% if reasoning_effort %}[{{ reasoning_effort }}]{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"reasoning_effort": "low"}),
        (CHAT, {"chat_template_kwargs": {"reasoning_effort": "low"}}),
        ("/v1/responses", {"reasoning": {"effort": "low"}}),
        ("/v1/runs", {"reasoning_effort": "low"}),
    ],
)
def test_how_much_to_think_is_told_to_a_template_that_asks(path: str, fields: dict[str, Any]) -> None:
    asked: list[Any] = []

    def load(template: str) -> Hogwild:
        hogwild = Hogwild("m.gguf", prompts=STYLE, engine=FakeEngine(model=FakeModel(template)).engine)
        stream = hogwild.stream
        hogwild.stream = lambda said, **o: (asked.append(o), stream(said, **o))[1]  # type: ignore[method-assign]
        return hogwild

    body = {"messages": ASKED["messages"], "input": "P", "max_passes": 2, "max_tokens": 2}
    with served(lambda: load(EFFORT)) as server:
        assert server.post(path, {**body, **fields}).status_code < 300
        assert asked.pop()["reasoning_effort"] == "low"
        assert server.post(CHAT, {**body, "reasoning_effort": "none"}).status_code == 200
        assert asked.pop()["thinking"] is False
        assert server.post(CHAT, {**body, "reasoning_effort": 3}).json()["error"]["param"] == "reasoning_effort"
        prompt = server.post("/apply-template", {**body, "reasoning_effort": "high"}).json()["prompt"]
        assert prompt.startswith("[high]")
    with served(lambda: load("{% for m in messages %}{{ m.content }}{% endfor %}")) as server:
        assert server.post(path, {**body, **fields}).status_code < 300
        assert "reasoning_effort" not in asked.pop()
