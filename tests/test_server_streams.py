"""Streams of a server: who goes ends his run, but where it is to be read again; who reads late or slowly is given what
is kept, and nobody waits for him."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from server_helper import ASKED, CHAT, events_of, paced, served, until

from hogwild_local.server.stream import MOST_AT_ONCE, Lost, Stream

BODY = {"messages": [{"role": "user", "content": "a=27+58"}], "stream": True, "max_passes": 1000}


def test_a_stream_is_read_from_any_place_by_any_number() -> None:
    async def go() -> None:
        stream = Stream(1000)
        late = asyncio.ensure_future(read(stream, 0))
        for n in range(5):
            stream.put(b"%d" % n)
            await asyncio.sleep(0)
        middle = asyncio.ensure_future(read(stream, 3))
        stream.end()
        assert (await late, await middle, await read(stream, 5)) == (b"01234", b"34", b"")
        assert (stream.n_bytes, stream.after_bytes(2)) == (5, (2, 0))

    asyncio.run(go())


def test_what_was_told_together_is_taken_together_up_to_a_size() -> None:
    stream = Stream(1 << 20)
    for n in range(3):
        stream.put(b"%d" % n * (MOST_AT_ONCE // 2))
    number, messages = stream.behind(0)
    assert (number, len(messages)) == (2, MOST_AT_ONCE)
    assert stream.behind(number) == (3, b"2" * (MOST_AT_ONCE // 2))


def test_of_a_long_stream_the_end_is_kept_and_who_is_slower_is_cut_off() -> None:
    async def go() -> None:
        stream = Stream(10)
        stream.put(b"0123")
        assert (await stream.more(0), stream.behind(0)) == (True, (1, b"0123"))
        for _ in range(4):
            stream.put(b"0123")
        with pytest.raises(Lost):
            stream.behind(1)
        assert (stream.n_dropped, stream.n_messages, stream.n_bytes) == (3, 5, 20)
        with pytest.raises(Lost):
            stream.after_bytes(8)
        with pytest.raises(Lost):
            stream.after_bytes(21)
        assert (stream.after_bytes(13), stream.after_bytes(16)) == ((3, 1), (4, 0))
        stream.put(b"x" * 100)  # longer than all that is kept: it is sent all the same
        assert (stream.n_dropped, stream.n_messages) == (5, 6)

    asyncio.run(go())


async def read(stream: Stream, after: int) -> bytes:
    parts = []
    while await stream.more(after):
        after, part = stream.behind(after)
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("streams", [True, False])
def test_who_goes_ends_his_run(streams: bool) -> None:
    with served(paced()) as server:
        host, port = server.address.removeprefix("http://").split(":")
        body = json.dumps({**BODY, "stream": streams}).encode()
        with socket.create_connection((host, int(port))) as client:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
            until(lambda: any(live.started for live in server.service.live.values()))
            (live,) = server.service.live.values()
        until(lambda: live.is_done, 5.0)
        assert live.ended.reason == "cancelled"
        assert live.ended.timings.passes < 1000
        server.idle()


def test_of_a_run_whose_client_has_gone_nothing_is_kept() -> None:
    with served(paced()) as server:
        gc.disable()  # else what is kept in cycles goes by chance
        try:
            with server.client.stream("POST", CHAT, json=BODY) as response:
                next(events_of(response))
                (live,) = map(weakref.ref, server.service.live.values())
            until(lambda: live() is None, 10.0)
        finally:
            gc.enable()


def test_who_waits_in_the_queue_and_goes_leaves_it() -> None:
    with served(paced(), parallel=1) as server, httpx.Client(base_url=server.address) as first:
        with first.stream("POST", CHAT, json=BODY):
            (running,) = server.service.live.values()
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(server.address + CHAT, json={**BODY, "stream": False}, timeout=0.3)
            until(lambda: list(server.service.live.values()) == [running], 5.0)
            assert not running.is_done
        server.idle()


def test_a_conversations_stream_outlives_its_client_and_is_read_again() -> None:
    with served() as server:
        headers = {"X-Conversation-Id": "mine::default"}
        asked = {**ASKED, "stream": True}
        whole = server.post(CHAT, asked, headers={"X-Conversation-Id": "other"}).content
        with server.client.stream("POST", CHAT, json=asked, headers=headers) as response:
            begin = next(response.iter_bytes(50))
        until(lambda: not server.service.live)
        get, query = server.client.get, {"conv_id": "mine::default"}
        rest = get("/v1/stream", params={**query, "from": len(begin)}).content
        again = get("/v1/stream", params=query).content
        assert _without_ids(again) == _without_ids(whole)
        assert again.endswith(rest)
        ids = [number for number, _, _ in _events(again)]
        assert ids == list(range(1, len(ids) + 1))
        tail = get("/v1/stream", params=query, headers={"Last-Event-ID": str(ids[-3])}).content
        assert [number for number, _, _ in _events(tail)] == ids[-2:]

        (known,) = server.post("/v1/streams/lookup", {"conversation_ids": ["mine::default", "nobody's"]}).json()
        assert (known["is_done"], known["total_bytes"]) == (True, len(again))
        assert get("/v1/stream", params={**query, "from": "x"}).status_code == 400
        assert get("/v1/stream", params={**query, "from": len(again) + 9}).status_code == 400
        assert server.client.delete("/v1/stream", params=query).status_code == 204
        assert get("/v1/stream", params=query).status_code == 404
        assert server.client.delete("/v1/stream", params=query).status_code == 204


def test_a_conversations_stream_is_stopped_by_name_or_by_the_next_one() -> None:
    with served(paced()) as server:
        headers = {"X-Conversation-Id": "mine"}
        for end in ("stop", "again"):
            with server.client.stream("POST", CHAT, json=BODY, headers=headers):
                pass  # and gone
            (live,) = server.service.live.values()
            time.sleep(0.1)
            assert not live.is_done
            if end == "stop":
                server.client.delete("/v1/stream", params={"conv_id": "mine"})
            else:
                server.post(CHAT, {**BODY, "max_passes": 2}, headers=headers)
            until(lambda live=live: live.is_done, 5.0)
            assert live.ended.reason == "cancelled"
        server.idle()


def test_without_time_to_read_them_again_streams_end_with_their_client() -> None:
    with served(paced(), resume=0) as server:
        with server.client.stream("POST", CHAT, json=BODY, headers={"X-Conversation-Id": "mine"}):
            (live,) = server.service.live.values()
        until(lambda: live.is_done, 5.0)
        assert server.client.get("/v1/stream", params={"conv_id": "mine"}).status_code == 404


def test_the_end_of_the_server_is_told_to_those_who_listen() -> None:
    with served(paced()) as server:
        with server.client.stream("POST", CHAT, json=BODY) as response:
            events = events_of(response)
            next(events)
            server.stop()
            last = [data for _, _, data in events]
        assert last[-1] == "[DONE]"
        assert json.loads(last[-2])["hogwild"]["reason"] == "cancelled"


def _events(content: bytes) -> list[tuple[int, str, str]]:
    return list(events_of(httpx.Response(200, content=content)))


def _without_ids(content: bytes) -> list[dict[str, object]]:
    chunks = [json.loads(data) for _, _, data in _events(content) if data != "[DONE]"]
    return [{"choices": chunk["choices"], "hogwild": chunk.get("hogwild")} for chunk in chunks]


def test_workers_are_slots() -> None:
    with served(paced()) as server:
        with server.client.stream("POST", CHAT, json={**BODY, "workers": 3}):
            until(lambda: len(server.client.get("/slots").json()) == 3)
            slots = server.client.get("/slots").json()
        assert [slot["worker"] for slot in slots] == ["Alice", "Bob", "Carol"]
        assert all(slot["is_processing"] for slot in slots)
        server.idle()


def test_several_requests_share_their_passes() -> None:
    with served() as server:
        alone = server.post(CHAT, ASKED).json()
        counts = []
        hogwild = server.service.hogwild
        decode = hogwild._cache.next_tokens

        def counted(views, samplers):  # type: ignore[no-untyped-def]
            counts.append(len(server.service.live))
            return decode(views, samplers)

        hogwild._cache.next_tokens = counted
        with httpx.Client(base_url=server.address) as other, ThreadPoolExecutor(8) as pool:
            done = list(pool.map(lambda _: other.post(CHAT, json=ASKED, timeout=30).json(), range(8)))
        assert max(counts) > 1
        assert [each["choices"] for each in done] == [alone["choices"]] * 8
