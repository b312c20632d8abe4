"""OpenAI's responses, in which each worker is an item, and the server's own runs, in which each event is one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from fakes import TINY_STYLE
from server_helper import ASKED, CHAT, SHEET, Served, embedded, events_of, noted_prompts, paced, served, until
from test_reply import STYLE

from hogwild_local import Result
from hogwild_local.prompts.tables import Role, Said


def test_a_response_has_an_item_for_each_worker_and_then_the_message(client: openai.OpenAI, wanted: Result) -> None:
    response = client.responses.create(model="default@3", input=SHEET, extra_body={"seed": 1})
    *thoughts, message = response.output
    assert response.output_text == message.content[0].text == wanted.reply
    assert [item.worker for item in thoughts] == list(wanted.texts)
    for item in thoughts:
        assert (item.type, item.status) == ("reasoning", "completed")
        steps = item.content[0].text.split("\n")
        assert all(step in wanted.history for step in steps)
    assert response.status == "completed"
    assert response.usage.output_tokens == wanted.usage.completion_tokens
    assert 0 < response.usage.output_tokens_details.reasoning_tokens <= response.usage.output_tokens


def test_its_deltas_are_told_apart_by_their_place(client: openai.OpenAI, wanted: Result) -> None:
    texts: dict[int, str] = {}
    events = list(client.responses.create(model="default@3", input=SHEET, stream=True, extra_body={"seed": 1}))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    for event in events:
        if event.type.endswith(".delta"):
            texts[event.output_index] = texts.get(event.output_index, "") + event.delta
    final = events[-1].response
    assert [texts[place] for place in range(4)] == [item.content[0].text for item in final.output]
    assert texts[3] == wanted.reply
    begun = {event.output_index for event in events if event.type == "response.output_item.added"}
    ended = {event.output_index for event in events if event.type == "response.output_item.done"}
    assert begun == ended == set(range(4))


def test_openais_helper_reads_a_response(client: openai.OpenAI, wanted: Result) -> None:
    with client.responses.stream(model="default@3", input=SHEET, extra_body={"seed": 1}) as stream:
        said = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert said == final.output_text == wanted.reply


def test_a_budget_that_ends_the_work_is_told_as_length_where_no_reply_follows() -> None:
    with served(paced(0.0)) as server:
        done = server.post(CHAT, {**ASKED, "max_passes": 3}).json()
        assert (done["choices"][0]["finish_reason"], done["hogwild"]["reason"]) == ("length", "budget")


def test_a_response_goes_on_with_an_earlier_one() -> None:
    with served(paced(0.0)) as server, openai.OpenAI(base_url=f"{server.address}/v1", api_key="none") as client:
        first = client.responses.create(model="m", input="What?", extra_body={"max_passes": 3})
        asked = noted_prompts(server)
        more = {"previous_response_id": first.id, "instructions": "Be brief.", "extra_body": {"max_passes": 3}}
        client.responses.create(model="m", input="And now?", **more)
        assert [message["role"] for message in asked[0]] == ["system", "user", "assistant", "user"]
        assert [message["content"] for message in asked[0]] == ["Be brief.", "What?", first.output_text, "And now?"]
        with pytest.raises(openai.NotFoundError):
            client.responses.create(model="m", input="b", previous_response_id="resp-none")


def test_of_responses_the_latest_are_kept_within_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hogwild_local.server.responses.MOST_CHARACTERS", 1000)
    with served(paced(0.0)) as server:

        def ask(**more: str) -> httpx.Response:
            return server.post("/v1/responses", {"input": "x" * 700, "max_passes": 3, **more})

        first, second = ask().json()["id"], ask().json()["id"]
        assert ask(previous_response_id=first).status_code == 404
        assert ask(previous_response_id=second).status_code == 200


@pytest.mark.parametrize("given", [None, [], 7, [7], [{"type": "image"}], [{"role": "user"}], ""])
def test_an_input_that_is_none_is_refused(server: Served, given: Any) -> None:
    assert server.post("/v1/responses", {"input": given}).status_code == 400


# -- our own --


def test_the_events_of_a_run_are_those_of_the_package(server: Served) -> None:
    made = server.post("/v1/runs", {**ASKED, "workers": 3})
    assert (made.status_code, made.headers["location"]) == (201, f"/v1/runs/{made.json()['id']}")
    got = [json.loads(data) for _, _, data in events_of(server.client.get(made.headers["location"] + "/events"))]
    with embedded() as hogwild:
        wanted = [event.to_dict() for event in hogwild.stream(SHEET, seed=1, workers=3)]
    assert [event["event"] for event in got] == [event["event"] for event in wanted]
    for kind in ("token", "step_ended", "answer"):
        assert [e for e in got if e["event"] == kind] == [e for e in wanted if e["event"] == kind]
    state = server.client.get(made.headers["location"]).json()
    assert (state["status"], state["n_events"]) == ("ended", len(got))


def test_a_run_goes_on_without_readers_and_is_read_from_where_one_was() -> None:
    with served(paced()) as server:
        run = server.post("/v1/runs", {"prompt": "a=27+58", "max_passes": 40}).json()
        path = f"/v1/runs/{run['id']}"
        with server.client.stream("GET", f"{path}/events") as response:
            events = events_of(response)
            seen = [next(events) for _ in range(10)]
        server.idle()
        rest = list(events_of(server.client.get(f"{path}/events", headers={"Last-Event-ID": str(seen[-1][0])})))
        whole = list(events_of(server.client.get(f"{path}/events")))
        assert seen + rest == whole
        assert [number for number, _, _ in whole] == list(range(1, len(whole) + 1))
        assert all(json.loads(data)["event"] == name for _, name, data in whole)


def test_workers_are_spoken_to_and_joined_from_outside() -> None:
    style = replace(TINY_STYLE, said=Said("{{ text }}"), role=Role("{{ role }}"))
    with served(paced(style=style)) as server:
        path = "/v1/runs/" + server.post("/v1/runs", {"prompt": "a=27+58", "max_passes": 3000}).json()["id"]
        assert server.post(f"{path}/say", {"text": "Hurry"}).status_code == 202
        assert server.post(f"{path}/say", {"text": "Slowly", "to": "Bob"}).status_code == 202
        added = server.post(f"{path}/add", {"worker": {"name": "Zoe", "role": "Doubt it.", "temperature": 0.1}})
        assert (added.status_code, added.json()["name"]) == (202, "Zoe")
        assert server.post(f"{path}/add", {}).json()["name"] == "Carol"
        assert server.post(f"{path}/add", {"worker": "Max"}).json()["name"] == "Max"
        for call, body, param in (
            ("say", {}, "text"),
            ("say", {"text": " "}, "text"),
            ("say", {"text": 7}, "text"),
            ("say", {"text": "x", "to": "Nobody"}, "to"),
            ("say", {"text": "x", "to": ["Bob"]}, "to"),
            ("add", {"worker": "Zoe"}, "worker"),
            ("add", {"worker": 7}, "workers"),
            ("add", {"worker": {"name": "Y", "role": ""}}, "role"),
            ("add", {"worker": {"name": "Y", "temperature": "hot"}}, "temperature"),
            ("add", {"worker": {"name": "Y", "stop": 7}}, "stop"),
        ):
            refused = server.post(f"{path}/{call}", body)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, param), (call, body, refused.text)
        until(lambda: [each["n_tokens"] > 10 for each in server.client.get(path).json()["workers"]] == [True] * 5)
        server.post(f"{path}/cancel", {})
        server.idle()
        events = [json.loads(data) for _, _, data in events_of(server.client.get(f"{path}/events"))]
        assert [(each["text"], each["to"]) for each in events if each["event"] == "said"] == [
            ("Hurry", None),
            ("Slowly", "Bob"),
        ]
        joined = [each["worker"] for each in events if each["event"] == "worker_joined"]
        assert sorted(joined) == ["Carol", "Max", "Zoe"]
        workers = server.client.get(path).json()["workers"]
        assert [worker["name"] for worker in workers] == ["Alice", "Bob", *joined]
        for call, body in (("say", {"text": "x"}), ("add", {})):
            assert server.post(f"{path}/{call}", body).status_code == 409


def test_who_comes_when_only_the_reply_is_written_is_too_late() -> None:
    style = replace(STYLE, said=Said("{{ text }}"))
    with served(paced(style=style)) as server:
        path = "/v1/runs/" + server.post("/v1/runs", {"prompt": "a", "max_passes": 2, "max_tokens": 1000}).json()["id"]
        with server.client.stream("GET", f"{path}/events") as response:
            next(name for _, name, _ in events_of(response) if name == "reply_token")
            for call, body in (("say", {"text": "x"}), ("add", {})):
                refused = server.post(f"{path}/{call}", body)
                assert (refused.status_code, "have ended" in refused.json()["error"]["message"]) == (409, True)
        server.post(f"{path}/cancel", {})
        server.idle()


def test_a_worker_is_stopped_and_a_run_cancelled_from_outside() -> None:
    with served(paced()) as server:
        path = "/v1/runs/" + server.post("/v1/runs", {"prompt": "a", "max_passes": 1000}).json()["id"]
        assert server.post(f"{path}/stop", {"worker": "Nobody"}).status_code == 400
        assert server.post(f"{path}/stop", {"worker": "Bob"}).status_code == 202
        until(lambda: server.client.get(path).json()["workers"][1]["finished"] == "stopped")
        assert server.client.get(path).json()["workers"][0]["finished"] is None
        assert [run["id"] for run in server.client.get("/v1/runs").json()["data"]] == [path.split("/")[-1]]
        assert server.post(f"{path}/cancel", {}).status_code == 202
        until(lambda: server.client.get(path).json()["status"] == "ended")
        assert server.client.get(path).json()["reason"] == "cancelled"
        assert server.post(f"{path}/cancel", {}).status_code == 409
        assert server.client.delete(path).status_code == 204
        assert server.client.get(path).status_code == 404
        server.idle()


def test_another_keys_runs_are_not_there() -> None:
    with served(paced(), api_keys=["a", "b"]) as server:
        mine, other = ({"Authorization": f"Bearer {key}"} for key in "ab")
        run = server.post("/v1/runs", {"prompt": "a", "max_passes": 1000}, headers=mine).json()["id"]
        for path in (f"/v1/runs/{run}", f"/v1/runs/{run}/events"):
            assert server.client.get(path, headers=other).status_code == 404
        assert server.client.delete(f"/v1/runs/{run}", headers=other).status_code == 404
        assert server.client.get("/v1/runs", headers=other).json()["data"] == []
        assert len(server.client.get("/v1/runs", headers=mine).json()["data"]) == 1
        assert server.client.delete(f"/v1/runs/{run}", headers=mine).status_code == 204


def test_runs_are_forgotten_a_while_after_their_end() -> None:
    with served(paced(0.0), resume=1) as server:
        path = "/v1/runs/" + server.post("/v1/runs", {"prompt": "a", "max_passes": 3}).json()["id"]
        until(lambda: server.client.get(path).status_code == 404, 10.0)
        assert httpx.get(f"{server.address}{path}/events").status_code == 404
