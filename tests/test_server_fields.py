"""Whatever the fields of a request are, they are an option or a fault: never a 500."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from typing import Any

import pytest
from fakes import FakeEngine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_helper import CHAT, Served, events_of, paced, served
from spoken import STYLE

from hogwild_local import Hogwild, Worker
from hogwild_local.options import RunOptions, SamplingParams, options_of


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(paced(0.0)) as made:
        yield made
        made.idle()


USER = [{"role": "user", "content": "a=27+58"}]
MORE = """messages model stream stream_options n max_tokens reasoning_format input instructions metadata store prompt
system previous_response_id chat_template_kwargs timings_per_token title content index texts tokens worker
conversation_ids parse_special with_pieces tools tool_choice response_format top_logprobs"""
FIELDS = sorted({*options_of(RunOptions), *options_of(SamplingParams), *MORE.split()})
TEXTS = st.text(max_size=8) | st.sampled_from(["\x00", "\x1b[31m", "\ud800", "a" * 3000, "all", "none", "text"])
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([1e308, 10**30, -1, 0]) | TEXTS
KEYS = st.sampled_from(["role", "content", "type", "text", "name", "stop", "grammar", "include_usage"]) | TEXTS
VALUES = st.recursive(PLAIN, lambda each: st.lists(each, max_size=3) | st.dictionaries(KEYS, each, max_size=3))
PATHS = [
    CHAT, "/v1/completions", "/v1/responses", "/v1/runs", "/v1/chats", "/tokenize", "/detokenize", "/apply-template",
    "/v1/streams/lookup", "/page/render",
]  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(PATHS), fields=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3))
def test_no_field_is_a_fault_of_the_servers(server: Served, path: str, fields: dict[str, Any]) -> None:
    body = {"messages": USER, "prompt": "a", "input": "a", "content": "a", "max_passes": 2, "max_tokens": 2, **fields}
    response = server.client.post(path, content=json.dumps(body))
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert response.json()["error"]["message"]
        assert len(response.content) < 2000


@pytest.mark.parametrize(
    "content",
    [
        '{"model": "\\ud800"}',
        '{"temperature": 1e999}',
        '{"metadata": {"a": 1e400}}',
        '{"messages": ' + "[" * 200 + "]" * 200 + "}",
        '{"messages": ' + '{"a":' * 500 + "1" + "}" * 500 + "}",
        '{"seed": ' + "1" * 5000 + "}",
        '{"a": -Infinity}',
    ],
)
def test_json_that_cannot_be_told_again_is_refused(server: Served, content: str) -> None:
    response = server.client.post("/v1/responses", content=content)
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")


def test_a_long_field_is_shown_in_part(server: Served) -> None:
    response = server.post(CHAT, {"messages": [{"x": "y" * 100_000}]})
    assert response.status_code == 400
    assert len(response.content) < 2000


WORKERS = ["Alice", {"name": "Bob", "role": "Doubt it.", "stop": ["###"], "grammar": 'root ::= "x"+'}, {"name": "Eve"}]


def test_workers_are_names_and_objects(server: Served) -> None:
    asked: list[Any] = []

    def load() -> Hogwild:
        hogwild = Hogwild("m.gguf", prompts=STYLE, engine=FakeEngine(filler=ord("x")).engine)
        stream = hogwild.stream

        def noted(messages: Any, **options: Any) -> Any:
            asked.append(options["workers"])
            return stream(messages, **options)

        hogwild.stream = noted  # type: ignore[method-assign]
        return hogwild

    with served(load) as other:
        done = other.post(CHAT, {"messages": USER, "workers": WORKERS, "max_passes": 4})
        assert done.status_code == 200, done.text
        assert asked == [
            [Worker("Alice"), Worker("Bob", "Doubt it.", stop=["###"], grammar='root ::= "x"+'), Worker("Eve")]
        ]
        assert set(done.json()["hogwild"]["workers"]) == {"Alice", "Bob", "Eve"}


@pytest.mark.parametrize(
    "worker",
    [{}, {"name": 7}, {"name": ""}, {"name": "A", "role": 7}, {"name": "A", "role": ""}, {"name": "A", "stop": [7]},
     {"name": "A", "grammar": []}, {"name": "A", "stop": "x" * 9, "role": ["b"]}, 7, []],
)  # fmt: skip
def test_a_worker_who_is_none_is_a_fault_of_workers(server: Served, worker: Any) -> None:
    for path in (CHAT, "/v1/runs", "/v1/responses", "/v1/chats"):
        response = server.post(path, {"messages": USER, "input": "a", "workers": [worker]})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "workers"), response.text


def test_a_conversations_workers_are_there_after_the_server(tmp_path: Any) -> None:
    workers = ["Alice", {"name": "Eve", "stop": ["###"]}]
    with served(paced(0.0), data=str(tmp_path)) as first:
        chat = first.post("/v1/chats", {"workers": workers}).json()
        assert chat["options"]["workers"][1]["name"] == "Eve"
    with served(paced(0.0), data=str(tmp_path)) as again:
        run = again.post(f"/v1/chats/{chat['id']}/send", {"content": "a", "max_passes": 3})
        assert run.status_code == 201, run.text
        list(events_of(again.client.get(run.headers["location"] + "/events")))
        workers = again.client.get(run.headers["location"]).json()["workers"]
        assert [worker["name"] for worker in workers] == ["Alice", "Eve"]


def test_a_worker_who_joins_is_an_item_of_the_response(server: Served) -> None:
    with (
        served(paced(0.005)) as slow,
        slow.client.stream("POST", "/v1/responses", json={"input": "a", "stream": True, "max_passes": 40}) as response,
    ):
        events = events_of(response)
        next(events)
        (live,) = slow.service.live.values()
        live.run.add(string.ascii_letters)
        rest = [data for _, _, data in events]
    assert any('"output_item.added"' in data or string.ascii_letters in data for data in rest)
    assert '"response.' in rest[-1]
    assert string.ascii_letters in rest[-1]
