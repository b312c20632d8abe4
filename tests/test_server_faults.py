"""What a server refuses, and that nothing is harmed by it: whatever is sent, the next request is answered."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fakes import TINY_STYLE, FakeEngine
from server_helper import ASKED, CHAT, Served, events_of, served, until

from hogwild_local import Hogwild


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(body_mb=1, body_timeout=3) as server:
        yield server
        server.idle()
        assert server.post(CHAT, ASKED).status_code == 200


USER = [{"role": "user", "content": "a=27+58\n"}]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"content": "a"}]}, "messages"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": [7]}, "messages"),
        ({"model": 3}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": [], "stream": True}, "stream_options"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_k": 1.5}, "top_k"),
        ({"repeat_penalty": 0}, "repeat_penalty"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": 5}, "logit_bias"),
        ({"stop": 7}, "stop"),
        ({"stop": ["x"] * 1000}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"n": 2}, "n"),
        ({"seed": "x"}, "seed"),
        ({"seed": 2**80}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": "many"}, "max_tokens"),
        ({"workers": 0}, "workers"),
        ({"workers": 10**9}, "workers"),
        ({"workers": ["A", "A"]}, "workers"),
        ({"workers": {"a": 1}}, "workers"),
        ({"layout": "round"}, "layout"),
        ({"layout": {}}, "layout"),
        ({"max_passes": -1}, "max_passes"),
        ({"ends": "never"}, "ends"),
        ({"thinking": "no"}, "thinking"),
        ({"reasoning_format": "loud"}, "reasoning_format"),
        ({"chat_template_kwargs": 1}, "chat_template_kwargs"),
        ({"date": "yesterday"}, "date"),
    ],
)
def test_a_wrong_field_is_named(server: Served, fields: dict[str, Any], param: str) -> None:
    for streams in (False, True):
        response = server.post(CHAT, {"messages": USER, "stream": streams, **fields})
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert (error["type"], error["param"]) == ("invalid_request_error", param), error
    server.idle()


def test_a_prompt_beyond_the_context_is_told_by_how_much(server: Served) -> None:
    for streams in (False, True):
        response = server.post(CHAT, {"messages": [{"role": "user", "content": "1+" * 9000}], "stream": streams})
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
        assert "18267 tokens" in error["message"]
        assert "there are 6144" in error["message"]  # three quarters: others are to find some


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[1]", 400),
        (b'"text"', 400),
        (b'{"a": NaN}', 400),
        (b"\xff\xfe", 400),
        (b"[" * 200_000, 400),
        (b'{"a":' * 200_000, 400),
        (b'{"messages": "' + b"x" * (2 << 20) + b'"}', 413),
    ],
)
def test_a_body_that_is_none_is_refused(server: Served, content: bytes, status: int) -> None:
    response = server.client.post(CHAT, content=content)
    assert response.status_code == status
    assert response.json()["error"]["message"]


def test_routes_and_methods_that_are_not_there_are_told_as_errors_are(server: Served) -> None:
    assert server.client.get("/v1/nothing").json()["error"]["type"] == "not_found_error"
    assert server.client.get(CHAT).status_code == 405


def raw(server: Served) -> socket.socket:
    host, port = server.address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), 10)


def test_a_request_that_is_sent_in_part_is_given_up(server: Served) -> None:
    with raw(server) as half:
        half.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{".encode())
        assert half.recv(1000).startswith(b"HTTP/1.1 408")
    with raw(server) as gone:
        gone.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{".encode())
    server.idle()


@pytest.mark.parametrize("prompt", [None, "", " \n", 7])
@pytest.mark.parametrize(
    ("path", "field"), [("/v1/runs", "prompt"), ("/v1/completions", "prompt"), ("/v1/responses", "input")]
)
def test_nothing_that_is_said_is_no_run(server: Served, path: str, field: str, prompt: object) -> None:
    response = server.post(path, {field: prompt})
    assert (response.status_code, response.json()["error"]["param"]) == (400, field)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:99"}, 200),
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Host": "app.localhost"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "friend.example"}, 200),
        ({"Host": "localhost", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
        ({"Host": "localhost:99", "Origin": "http://localhost:99"}, 200),
        ({"Host": "localhost", "Origin": "https://page.example"}, 200),
    ],
)
def test_pages_of_others_may_not_ask(headers: dict[str, str], status: int) -> None:
    with served(allowed_hosts=["friend.example"], cors_origins=["https://page.example"]) as server:
        response = httpx.get(f"{server.address}/health", headers=headers)
        assert response.status_code == status
        if "page" in headers.get("Origin", ""):
            assert response.headers["access-control-allow-origin"] == headers["Origin"]


def test_a_key_is_asked_for_where_one_is_set() -> None:
    with served(api_keys=["secret", "other"]) as server:
        assert server.client.get("/health").status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}, {"X-Api-Key": "ä"}):
            response = server.post(CHAT, ASKED, headers={name: value.encode() for name, value in headers.items()})
            assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
        for headers in ({"Authorization": "Bearer other"}, {"X-Api-Key": "secret"}):
            assert server.post(CHAT, ASKED, headers=headers).status_code == 200


def made(in_pass: Callable[[object], None]) -> Callable[[], Hogwild]:
    """in_pass: called in each pass."""

    def load() -> Hogwild:
        hogwild = Hogwild("m.gguf", prompts=TINY_STYLE, engine=FakeEngine().engine)
        hogwild._cache.on_decode = in_pass
        return hogwild

    return load


def test_who_finds_the_queue_full_is_told_to_come_later() -> None:
    body = {"messages": USER, "stream": True, "max_passes": 500}
    with (
        served(made(lambda cache: time.sleep(0.02)), parallel=1, queue=1, api_keys=["a", "b", "c"]) as server,
        httpx.Client(base_url=server.address) as other,
    ):
        a, b, c = ({"Authorization": f"Bearer {key}"} for key in "abc")
        with other.stream("POST", CHAT, json=body, headers=a) as first:
            assert first.status_code == 200
            until(lambda: len(server.service.live) == 1)
            with other.stream("POST", CHAT, json=body, headers=b) as second:
                assert second.status_code == 200
                third = server.post(CHAT, body, headers=c)
                assert (third.status_code, third.json()["error"]["code"]) == (429, "queue_full")
                assert int(third.headers["retry-after"]) > 0
        server.idle()


def test_without_a_queue_as_many_run_as_may() -> None:
    body = {"messages": USER, "max_passes": 20}
    with served(made(lambda cache: time.sleep(0.01)), parallel=4, queue=0) as server, ThreadPoolExecutor(3) as pool:
        done = pool.map(lambda _: httpx.post(server.address + CHAT, json=body, timeout=30).status_code, range(3))
        assert list(done) == [200] * 3  # a fourth one of this client would be too many


def test_what_goes_wrong_in_the_middle_of_a_stream_is_its_last_event() -> None:
    n = itertools.count()

    def fail(cache: object) -> None:
        if next(n) > 8:
            raise RuntimeError("the device has gone")

    with served(made(fail)) as server:
        response = server.post(CHAT, {"messages": USER, "stream": True})
        *_, (_, _, last) = events_of(response)
        assert "the device has gone" in last
        assert '"type":"server_error"' in last
        server.idle()
