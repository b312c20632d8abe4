"""Conversations that a server keeps: turns are runs, branches are conversations, and all are there again after it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from server_helper import Served, events_of, paced, served, until
from test_reply import STYLE

from hogwild_local.server import chat_shelf
from hogwild_local.server.chat_shelf import ChatShelf


def turn(server: Served, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """One turn, up to its end; the conversation then."""
    run = server.post(path, {"max_passes": 3, "max_tokens": 4, **body})
    assert run.status_code == 201, run.text
    list(events_of(server.client.get(f"/v1/runs/{run.json()['id']}/events")))
    chat = f"/v1/chats/{run.json()['chat']}"
    until(lambda: server.client.get(f"/v1/runs/{run.json()['id']}").json()["status"] == "ended")
    return server.client.get(chat).json()


def said(chat: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in chat["messages"]]


def test_turns_branches_and_edits_are_conversations(tmp_path: Path) -> None:
    with served(paced(0.0, STYLE), data=str(tmp_path)) as server:
        chat = server.post("/v1/chats", {"system": "Be brief.", "workers": 3}).json()
        path = f"/v1/chats/{chat['id']}"
        after = turn(server, f"{path}/send", {"content": "What is it?"})
        assert said(after)[:2] == [("system", "Be brief."), ("user", "What is it?")]
        assert after["messages"][2]["role"] == "assistant"
        assert len(after["messages"][2]["content"]) == 4
        assert after["messages"][2]["reasoning_content"]
        assert after["title"] == "What is it?"
        branch = server.post(f"{path}/fork", {}).json()
        assert (branch["parent"], said(branch)) == (chat["id"], said(after))
        assert server.client.get("/v1/chats").json()["data"][0]["id"] == branch["id"]
        turn(server, f"/v1/chats/{branch['id']}/send", {"content": "And now?"})
        assert len(server.client.get(path).json()["messages"]) == 3
        assert len(turn(server, f"{path}/regenerate", {})["messages"]) == 3
        assert said(turn(server, f"{path}/edit", {"index": 1, "content": "Why?"}))[1] == ("user", "Why?")
        listed = server.client.get("/v1/chats").json()["data"]
        assert {each["id"]: each["n_messages"] for each in listed} == {chat["id"]: 3, branch["id"]: 5}
        assert "messages" not in listed[0]
        whole = {each["id"]: server.client.get(f"/v1/chats/{each['id']}").json() for each in listed}
        server.idle()
        until(lambda: len(json.loads((tmp_path / f"{chat['id']}.json").read_text())["messages"]) == 3)
    (tmp_path / "chat-damaged.json").write_text("{")
    with served(paced(0.0, STYLE), data=str(tmp_path)) as server:  # another one, later
        for name, kept in whole.items():
            assert server.client.get(f"/v1/chats/{name}").json() == kept
        assert server.client.patch(path, json={"title": "Names"}).json()["title"] == "Names"
        assert len(turn(server, f"{path}/send", {"content": "More"})["messages"]) == 5
        assert server.client.delete(path).status_code == 204
        assert server.client.get(path).status_code == 404
        assert not (tmp_path / f"{chat['id']}.json").exists()


def test_only_those_that_were_used_last_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_shelf, "MOST_OPEN", 2)
    shelves: list[ChatShelf] = []
    made = ChatShelf.__init__

    def noted(shelf: ChatShelf, *of_shelf: Any) -> None:
        made(shelf, *of_shelf)
        shelves.append(shelf)

    monkeypatch.setattr(ChatShelf, "__init__", noted)
    with served(paced(0.0, STYLE), data=str(tmp_path)) as server:
        paths = [f"/v1/chats/{server.post('/v1/chats', {'title': str(n)}).json()['id']}" for n in range(4)]
        for n in range(2):
            for path in paths:
                assert len(turn(server, f"{path}/send", {"content": f"What? {n}"})["messages"]) == 2 * n + 2
        assert len(shelves[0]._open) == 2
        listed = server.client.get("/v1/chats").json()["data"]
        assert [(each["title"], each["n_messages"]) for each in listed] == [(t, 4) for t in ("3", "2", "1", "0")]
        assert said(server.client.get(paths[0]).json())[2] == ("user", "What? 1")  # not opened for that
        assert server.client.patch(paths[0], json={"title": "first"}).json()["n_messages"] == 4
        assert len(turn(server, f"{paths[0]}/regenerate", {})["messages"]) == 4
        server.post(f"{paths[1]}/send", {"content": "x", "max_passes": 1000})  # one in a turn stays
        for path in paths[2:]:
            turn(server, f"{path}/send", {"content": "What?"})
        assert server.post(f"{paths[1]}/send", {"content": "x"}).status_code == 409
        server.client.delete(paths[1])
        (tmp_path / f"{paths[0].rsplit('/', 1)[1]}.json").write_text("{")
        assert server.client.get(paths[0]).status_code == 404
        server.idle()


def test_without_a_folder_the_one_that_was_not_used_for_the_longest_time_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chat_shelf, "MOST_CHARACTERS", 1000)
    with served(paced(0.0, STYLE)) as server:
        long = [{"role": "user", "content": "x" * 400}]
        paths = [f"/v1/chats/{server.post('/v1/chats', {'messages': long}).json()['id']}" for _ in range(2)]
        turn(server, f"{paths[0]}/send", {"content": "What?"})
        paths.append(f"/v1/chats/{server.post('/v1/chats', {'messages': long}).json()['id']}")
        assert [server.client.get(path).status_code for path in paths] == [200, 404, 200]
        assert len(server.client.get("/v1/chats").json()["data"]) == 2


def test_a_run_says_what_turn_of_which_conversation_it_is() -> None:
    with served(paced(0.0, STYLE)) as server:
        assert server.post("/v1/runs", {"prompt": "x", "max_passes": 2, "max_tokens": 2}).json()["turn"] is None
        path = f"/v1/chats/{server.post('/v1/chats', {'system': 'Be brief.'}).json()['id']}"
        for call, body, turn in (
            ("send", {"content": "What?"}, {"index": 1, "content": "What?"}),
            ("send", {"content": "And?"}, {"index": 3, "content": "And?"}),
            ("regenerate", {}, {"index": 3, "content": "And?"}),
            ("edit", {"index": 1, "content": "Why?"}, {"index": 1, "content": "Why?"}),
        ):
            run = server.post(f"{path}/{call}", {"max_passes": 3, "max_tokens": 4, **body}).json()
            assert (run["chat"], run["turn"]) == (path.rsplit("/", 1)[1], turn)
            server.idle()


def test_a_turn_at_a_time_and_what_is_wrong_is_named() -> None:
    with served(paced(0.01, STYLE)) as server:
        path = f"/v1/chats/{server.post('/v1/chats', {}).json()['id']}"
        for call, body, status in (
            ("regenerate", {}, 400),
            ("edit", {"index": 0, "content": "x"}, 400),
            ("send", {"content": ""}, 400),
            ("send", {"content": 7}, 400),
            ("send", {"content": "x", "workers": 0}, 400),
            ("fork", {"n": 9}, 400),
        ):
            assert server.post(f"{path}/{call}", body).status_code == status, call
        assert server.post("/v1/chats", {"messages": [{"role": "user"}]}).status_code == 400
        assert server.post("/v1/chats", {"layout": "round"}).status_code == 400
        run = server.post(f"{path}/send", {"content": "x", "max_passes": 1000})
        assert run.status_code == 201
        assert server.post(f"{path}/send", {"content": "y"}).status_code == 409
        server.post(f"/v1/runs/{run.json()['id']}/cancel", {})
        server.idle()
        assert server.client.get("/v1/chats/chat-none").status_code == 404


def test_conversations_of_another_key_are_not_there(tmp_path: Path) -> None:
    with served(paced(0.0, STYLE), api_keys=["a", "b"], data=str(tmp_path)) as server:
        mine, other = ({"Authorization": f"Bearer {key}"} for key in "ab")
        name = server.post("/v1/chats", {}, headers=mine).json()["id"]
        assert server.client.get(f"/v1/chats/{name}", headers=mine).status_code == 200
        assert server.client.get(f"/v1/chats/{name}", headers=other).status_code == 404
        assert server.client.delete(f"/v1/chats/{name}", headers=other).status_code == 404
        assert server.client.get("/v1/chats", headers=other).json()["data"] == []
        assert "Bearer" not in (tmp_path / f"{name}.json").read_text()


@pytest.mark.parametrize("name", ["../../secret", "chat-" + "0" * 24 + "/../x", "%2e%2e%2fsecret"])
def test_no_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    with served(paced(0.0, STYLE), data=str(tmp_path / "chats")) as server:
        assert server.client.get(f"/v1/chats/{name}").status_code == 404
        assert server.client.delete(f"/v1/chats/{name}").status_code in (404, 405)
    assert (tmp_path / "secret.json").exists()
