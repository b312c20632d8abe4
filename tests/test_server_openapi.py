"""The OpenAPI document is what the server does: each of its operations is called, and each answer is as it says."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import jsonschema
from server_helper import Served, paced, served, until
from test_reply import STYLE

from hogwild_local.prompts.tables import Said

load = paced(0.002, replace(STYLE, said=Said("{{ text }}")))


class Described:
    """Calls operations, and checks what is sent and answered."""

    def __init__(self, server: Served) -> None:
        self.server, self.document = server, server.client.get("/openapi.json").json()
        self.called: set[tuple[str, str]] = set()

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None, **names: str) -> Any:
        operation = self.document["paths"][path][method]
        self.called.add((method, path))
        if body is not None and "requestBody" in operation:
            self.check(body, operation["requestBody"]["content"]["application/json"]["schema"])
        response = self.server.client.request(method, path.format(**names), json=body)
        assert str(response.status_code) in operation["responses"], response.text
        content = operation["responses"][str(response.status_code)].get("content", {})
        if "text/event-stream" in content:
            assert response.headers["content-type"].startswith("text/event-stream")
            return response.text
        if not content:
            return None
        self.check(response.json(), content["application/json"]["schema"])
        return response.json()

    def refused(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        response = self.server.client.request(method, path, json=body)
        assert 400 <= response.status_code < 500
        self.check(response.json(), {"$ref": "#/components/schemas/Error"})

    def check(self, value: Any, schema: dict[str, Any]) -> None:
        whole = {**schema, "components": self.document["components"]}
        jsonschema.Draft202012Validator(whole).validate(value)


def test_every_operation_answers_as_the_document_says() -> None:
    with served(load) as server:
        call = Described(server)
        short, long = {"max_passes": 2, "max_tokens": 2}, {"max_passes": 2000}
        run = call("post", "/v1/runs", {"prompt": "What?", "workers": 2, "temperature": 0.5, **short})
        assert "event: run_ended" in call("get", "/v1/runs/{run}/events", run=run["id"])
        until(lambda: call("get", "/v1/runs/{run}", run=run["id"])["status"] == "ended")
        going = call("post", "/v1/runs", {"messages": [{"role": "user", "content": "x"}], **long})["id"]
        call("post", "/v1/runs/{run}/stop", {"worker": "Bob"}, run=going)
        call("post", "/v1/runs/{run}/say", {"text": "Hurry", "to": "Alice"}, run=going)
        call("post", "/v1/runs/{run}/add", {"worker": {"name": "Zoe", "top_k": 3, "stop": ["x"]}}, run=going)
        call("post", "/v1/runs/{run}/add", {"worker": "Max"}, run=going)
        call("get", "/v1/runs")
        call("post", "/v1/runs/{run}/cancel", {}, run=going)
        call("delete", "/v1/runs/{run}", run=going)

        chat = call("post", "/v1/chats", {"system": "Be brief.", "title": "T", "layout": "interleaved"})["id"]
        for path, body in (
            ("send", {"content": "What?"}),
            ("regenerate", {}),
            ("edit", {"index": 1, "content": "Why?"}),
        ):
            turn = call("post", f"/v1/chats/{{chat}}/{path}", {**short, **body}, chat=chat)
            assert turn["chat"] == chat
            until(lambda turn=turn: server.client.get(f"/v1/runs/{turn['id']}").json()["status"] == "ended")
        call("get", "/v1/chats/{chat}", chat=chat)
        call("patch", "/v1/chats/{chat}", {"title": "Other"}, chat=chat)
        branch = call("post", "/v1/chats/{chat}/fork", {"n": 2}, chat=chat)
        call("get", "/v1/chats")
        call("delete", "/v1/chats/{chat}", chat=branch["id"])

        call.refused("post", "/v1/runs", {"prompt": "x", "workers": 0})
        call.refused("get", "/v1/runs/none")
        call.refused("post", f"/v1/chats/{chat}/send", {"content": ""})
        all_of_them = {(method, path) for path, each in call.document["paths"].items() for method in each}
        assert call.called == all_of_them


def test_every_route_of_our_own_is_in_the_document() -> None:
    with served(load) as server:
        described = server.client.get("/openapi.json").json()["paths"]
        for route in server.application.routes:
            if re.match(r"/v1/(runs|chats)", route.path):
                for method in route.methods - {"HEAD"}:
                    assert method.lower() in described[route.path], (method, route.path)
