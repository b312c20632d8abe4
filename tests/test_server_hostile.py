"""Clients that mean harm, or are broken: over plain sockets. Each is ended, and nothing is left of it."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import select
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from server_helper import ASKED, CHAT, Served, events_of, paced, served, until

from hogwild_local import Hogwild

BODY = {"messages": [{"role": "user", "content": "a=27+58"}], "max_passes": 100_000}
HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(body_mb=1, body_timeout=1) as made:
        yield made
        made.idle()
        assert made.post(CHAT, ASKED).status_code == 200


@contextlib.contextmanager
def raw(server: Served) -> Iterator[socket.socket]:
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as made:
        yield made


def everything(client: socket.socket) -> bytes:
    """Up to the end of the connection."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := client.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("begun", [b"", b"POST /v1/ch", HEAD.encode(), HEAD.encode() + b"X: "])
def test_who_sends_a_part_of_a_head_is_not_waited_for(server: Served, begun: bytes) -> None:
    with raw(server) as client:
        client.sendall(begun)
        assert everything(client).startswith(b"HTTP/1.1 400" if begun else b"")


def test_nor_who_does_so_after_a_whole_request(server: Served) -> None:
    with raw(server) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        said = b""
        while b'"ok"}' not in said:
            said += client.recv(1000)
        client.sendall(b"GET /hea")
        assert everything(client).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("head", ["Content-Length: 100000000\r\n", "Transfer-Encoding: chunked\r\n"])
def test_a_body_without_end_is_refused_and_then_ended(server: Served, head: str) -> None:
    part = b"x" * (1 << 16)
    chunk = b"%x\r\n%b\r\n" % (len(part), part) if "chunked" in head else part
    with raw(server) as client:
        client.sendall(f"{HEAD}{head}\r\n".encode())
        said = b""
        with contextlib.suppress(ConnectionError):
            while True:  # it ends, for the server ends the connection
                if select.select([client], [], [], 0.0)[0]:
                    said += client.recv(1000)
                    time.sleep(0.01)
                client.sendall(chunk)
        assert said.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
        b"GET /" + b"x" * (1 << 20) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/%ff%fe%00%0a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: [::1]]\r\nConnection: close\r\n\r\n",
        b"GET //evil.example/v1/runs/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"POST /v1/runs/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    ],
)
def test_a_head_that_is_none_is_refused(server: Served, head: bytes) -> None:
    with raw(server) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(head)
        assert re.match(rb"(HTTP/1.1 4\d\d|$)", everything(client))


def test_requests_that_are_sent_together_are_answered_in_order(server: Served) -> None:
    body = json.dumps(ASKED).encode()
    post = f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body
    get = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with raw(server) as client:
        client.sendall(get + post + get + b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        said = everything(client)
    assert re.findall(rb"HTTP/1.1 (\d+)", said) == [b"200", b"200", b"200", b"404"]
    assert said.index(b'{"status":"ok"}') < said.index(b"chat.completion") < said.rindex(b'{"status":"ok"}')


def test_a_thousand_connections_that_do_nothing_hinder_nobody(server: Served) -> None:
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(raw(server)) for _ in range(1000)]
        assert server.post(CHAT, ASKED).status_code == 200
        assert all(everything(client) == b"" for client in idle)


def test_who_takes_nothing_of_his_stream_is_cut_off_and_no_run_waits_for_him() -> None:
    body = json.dumps({**BODY, "stream": True, "timings_per_token": True}).encode()
    with served(paced(), stream_mb=1, body_timeout=1) as server:
        server.listener._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # connections inherit it
        with raw(server) as client:
            client.sendall(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            until(lambda: any(live.started for live in server.service.live.values()))
            (live,) = server.service.live.values()
            until(lambda: live.is_done, 60.0)
            assert live.ended.reason == "cancelled"
            server.idle()


def test_who_takes_it_slowly_gets_all_of_it() -> None:
    body = json.dumps({**BODY, "stream": True, "timings_per_token": True, "max_passes": 1000}).encode()
    with served(paced(0.0), body_timeout=1) as server, raw(server) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(f"{HEAD}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        said = []
        while part := client.recv(1 << 15):
            said.append(part)
            time.sleep(0.02)
        assert b"data: [DONE]" in b"".join(said)


def test_head_of_a_stream_is_its_head() -> None:
    with served(paced()) as server:
        run = server.post("/v1/runs", {"prompt": "a", "max_passes": 1000}).json()["id"]
        response = server.client.head(f"/v1/runs/{run}/events", timeout=3)
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["content-type"].startswith("text/event-stream")
        server.client.delete(f"/v1/runs/{run}")


def test_what_a_client_says_of_his_address_is_not_believed() -> None:
    with served(paced()) as server:
        server.post("/v1/runs", {"prompt": "a", "max_passes": 3}, headers={"X-Forwarded-For": "10.1.2.3"})
        server.post("/v1/runs", {"prompt": "a", "max_passes": 3}, headers={"Authorization": "Bearer other"})
        assert len(server.client.get("/v1/runs").json()["data"]) == 2


def test_another_keys_stream_is_not_there_by_its_name() -> None:
    with served(paced(), api_keys=["a", "b"]) as server:
        for header in ("Authorization", "X-Api-Key"):
            mine, other = ({header: key} for key in (("Bearer a", "Bearer b") if header[0] == "A" else "ab"))
            named = {**mine, "X-Conversation-Id": "x"}
            with server.client.stream("POST", CHAT, json={**BODY, "stream": True}, headers=named):
                (live,) = server.service.live.values()
                asked = {"params": {"conv_id": "x"}}
                assert server.client.get("/v1/stream", headers=other, **asked).status_code == 404
                server.client.delete("/v1/stream", headers=other, **asked)
                listed = server.post("/v1/streams/lookup", {"conversation_ids": ["x"]}, headers=other)
                assert listed.json() == []
                assert not live.is_done
            server.client.delete("/v1/stream", headers=mine, **asked)
            server.idle()


def test_a_fault_of_ours_is_told_without_its_inside(caplog: pytest.LogCaptureFixture) -> None:
    with served(paced()) as server:
        server.service.hogwild.count = None  # type: ignore[attr-defined]

        def fails(*messages: object, **options: object) -> None:
            raise KeyError("our secret")

        server.service.hogwild.stream = fails  # type: ignore[method-assign]
        with caplog.at_level(logging.ERROR):
            response = server.post(CHAT, BODY)
        assert (response.status_code, response.json()["error"]["type"]) == (500, "server_error")
        assert "secret" not in response.text
        assert "our secret" in caplog.text
        assert server.client.get("/health").status_code == 200


def test_a_model_that_cannot_be_loaded_ends_the_server() -> None:
    def load() -> Hogwild:
        raise MemoryError("too large")

    from hogwild_local.options import ServerOptions
    from hogwild_local.server.listen import Listener
    from hogwild_local.server.service import Service

    with pytest.raises(MemoryError, match="too large"):
        Listener(Service(load, ServerOptions(port=0, data=""), {}, "m"), "separate", None, None).serve()


def test_control_characters_of_models_and_names_are_escaped() -> None:
    name = "\x1b]0;x\x07\r\nid: 7\ndata: y"
    with served(paced()) as server:
        run = server.post("/v1/runs", {"prompt": "\x1b[2J\r\n\r\n", "workers": [name], "max_passes": 3})
        events = list(events_of(server.client.get(run.headers["location"] + "/events")))
        assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
        assert not any(ord(character) < 32 for _, _, data in events for character in data)
        assert json.loads(events[0][2])["workers"] == [name]


def test_who_leaves_the_queue_ends_his_run_unless_it_is_kept() -> None:
    streams = {**BODY, "stream": True}
    with served(paced(), parallel=1) as server, httpx.Client(base_url=server.address) as first:
        for headers in ({}, {"X-Conversation-Id": "mine"}):
            with first.stream("POST", CHAT, json=streams):
                (running,) = server.service.live.values()
                with pytest.raises(httpx.ReadTimeout):
                    # It waits behind the running one.
                    httpx.post(server.address + CHAT, json=streams, headers=headers, timeout=0.3)
                waiting = [live for live in server.service.live.values() if live is not running]
                if not headers:
                    until(lambda running=running: list(server.service.live.values()) == [running])
                else:
                    time.sleep(0.3)
                    assert not waiting[0].is_done
            until(lambda running=running: running.is_done)
        server.client.delete("/v1/stream", params={"conv_id": "mine"})
        server.idle()
