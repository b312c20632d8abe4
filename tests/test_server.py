"""The server, as OpenAI's clients and llama-server's see it: what a client sends is what a run gets, and what a run
writes is what a client reads."""

from __future__ import annotations

import json
import re

import openai
import pytest
from server_helper import ASKED, CHAT, SHEET, Served, embedded, events_of, served

from hogwild_local import Result


def test_a_completion_is_what_the_run_says(client: openai.OpenAI, wanted: Result) -> None:
    done = client.chat.completions.create(model="default", extra_body={"workers": 3}, **ASKED)  # type: ignore[call-overload]
    choice = done.choices[0]
    assert choice.message.content == wanted.reply
    assert choice.message.reasoning_content == wanted.history
    assert choice.finish_reason == "stop"
    assert done.usage.prompt_tokens == wanted.usage.prompt_tokens
    assert done.usage.completion_tokens == wanted.usage.completion_tokens
    assert done.hogwild["workers"] == wanted.texts
    assert done.hogwild["seed"] == 1


def test_a_models_name_says_how_many_workers(client: openai.OpenAI, wanted: Result) -> None:
    done = client.chat.completions.create(model="default@3", **ASKED)  # type: ignore[call-overload]
    assert done.hogwild["workers"] == wanted.texts


def test_a_stream_has_the_steps_as_reasoning_and_then_the_reply(client: openai.OpenAI, wanted: Result) -> None:
    thoughts, said, steps, usage = "", "", [], None
    stream = client.chat.completions.create(
        model="default@3", stream=True, stream_options={"include_usage": True}, **ASKED
    )  # type: ignore[call-overload]
    for chunk in stream:
        usage = usage or chunk.usage
        if not chunk.choices:
            continue
        delta = chunk.choices[0].delta
        if thought := getattr(delta, "reasoning_content", None):
            assert not said
            thoughts += thought
            steps.append((chunk.hogwild["worker"], chunk.hogwild["step"]))
        said += delta.content or ""
    assert thoughts == wanted.history + "\n\n"
    assert said == wanted.reply
    assert {worker for worker, _ in steps} == set(wanted.texts)
    assert steps.index(("Alice", 1)) < steps.index(("Alice", 2))
    assert usage.total_tokens == wanted.usage.prompt_tokens + wanted.usage.completion_tokens


def test_openais_helper_reads_the_stream(client: openai.OpenAI, wanted: Result) -> None:
    with client.chat.completions.stream(model="default@3", **ASKED) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].message.content == wanted.reply
    assert final.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("streams", [False, True])
def test_reasoning_may_stand_in_the_content_or_nowhere(server: Served, wanted: Result, streams: bool) -> None:
    def content(form: str) -> str:
        body = {**ASKED, "workers": 3, "reasoning_format": form, "stream": streams}
        response = server.post(CHAT, body)
        if not streams:
            message = response.json()["choices"][0]["message"]
            assert "reasoning_content" not in message
            return message["content"]
        chunks = [json.loads(data) for _, _, data in events_of(response) if data != "[DONE]"]
        assert not any("reasoning_content" in chunk["choices"][0]["delta"] for chunk in chunks)
        return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)

    assert content("none") == wanted.reply
    assert content("inline") == f"<think>\n{wanted.history}\n\n</think>\n\n{wanted.reply}"


def test_the_older_completions_take_a_prompt_and_give_text(client: openai.OpenAI, wanted: Result) -> None:
    asked = {"model": "default@3", "prompt": SHEET, "seed": 1}
    assert client.completions.create(**asked).choices[0].text == wanted.reply  # type: ignore[call-overload]
    stream = client.completions.create(stream=True, **asked)  # type: ignore[call-overload]
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == wanted.reply


def test_a_budget_that_ends_the_work_leaves_a_whole_reply_and_one_that_ends_the_reply_is_told_as_length(
    server: Served,
) -> None:
    done = server.post(CHAT, {**ASKED, "max_passes": 4}).json()
    assert (done["choices"][0]["finish_reason"], done["hogwild"]["reason"]) == ("stop", "budget")
    assert done["choices"][0]["message"]["content"].startswith("So far a is not done")
    done = server.post(CHAT, {**ASKED, "max_tokens": 4}).json()
    assert (done["choices"][0]["finish_reason"], done["hogwild"]["reason"]) == ("length", "answer")
    assert done["choices"][0]["message"]["content"] == "The results are a"


def test_progress_and_timings_come_where_they_are_asked_for(server: Served) -> None:
    asked = {**ASKED, "stream": True, "return_progress": True, "timings_per_token": True}
    chunks = [json.loads(data) for _, _, data in events_of(server.post(CHAT, asked)) if data != "[DONE]"]
    progress = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
    assert progress[-1]["processed"] == progress[-1]["total"]
    assert progress[0]["cache"] == progress[0]["processed"]
    timings = [chunk["timings"] for chunk in chunks if "timings" in chunk]
    assert len(timings) > 20
    assert timings[-1]["predicted_n"] >= timings[0]["predicted_n"] > 0
    assert timings[-1]["cache_n"] + timings[-1]["prompt_n"] == progress[-1]["total"]


def test_llama_servers_routes_tell_how_it_is(server: Served) -> None:
    get = server.client.get
    assert get("/health").json() == get("/v1/health").json() == {"status": "ok"}
    (model,) = get("/v1/models").json()["data"]
    assert (model["id"], model["meta"]["n_ctx"]) == ("default", 8192)
    props = get("/props").json()
    assert (props["total_slots"], props["default_generation_settings"]["n_ctx"]) == (16, 6144)
    assert props["n_windowed"] == 8192
    assert get("/slots").json() == []
    before = get("/metrics").text
    assert "hogwild:requests_processing 0" in before
    for what in ("cells", "cells_free", "windowed_cells"):
        assert f"hogwild:kv_cache_{what} 8192" in before
    server.post(CHAT, ASKED)

    def total(text: str) -> int:
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("hogwild:requests_total"))

    assert total(get("/metrics").text) == total(before) + 1


def test_tokens_and_templates_are_the_models(server: Served) -> None:
    tokens = server.post("/tokenize", {"content": "a=27"}).json()["tokens"]
    assert server.post("/detokenize", {"tokens": tokens}).json() == {"content": "a=27"}
    pieces = server.post("/tokenize", {"content": "a=27", "with_pieces": True}).json()["tokens"]
    assert [piece["piece"] for piece in pieces] == ["a", "=", "2", "7"]
    assert server.post("/apply-template", ASKED).json()["prompt"] == "#2\n" + SHEET.strip()


def test_a_model_that_is_not_there_yet_is_said() -> None:
    import threading

    go = threading.Event()

    def load():  # type: ignore[no-untyped-def]
        go.wait(30)
        return embedded()

    with served(load, waits=False) as server:
        for response in (server.client.get("/health"), server.client.get("/v1/models"), server.post(CHAT, ASKED)):
            assert (response.status_code, response.json()["error"]["message"]) == (503, "Loading model")
        go.set()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("**a** <b>b</b>", "<p><strong>a</strong> &lt;b&gt;b&lt;/b&gt;</p>"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>"),
        ('<img src=x onerror="alert(1)">', "&lt;img"),
        ("![i](http://evil.example/x.png)", "<p>!<a"),
        ("<math><mtext><img src=x onerror=1></mtext></math>", "&lt;math&gt;"),
        ("\\(\\frac{a}{b}\\)", "<mfrac><mrow><mi>a</mi></mrow><mrow><mi>b</mi></mrow></mfrac>"),
        ("it costs $5, or $6", "<p>it costs $5, or $6</p>"),
        ("`$a$` and $b$", "<code>$a$</code> and <math"),
        ("$\\text{<img src=x onerror=1>}$", "<math"),
        ("\x1b[31m\ue0000\ue000", "[31m"),
    ],
)
def test_what_a_model_writes_is_never_html_of_its_own(server: Served, text: str, shown: str) -> None:
    (html,) = server.post("/page/render", {"texts": [text]}).json()["html"]
    assert shown in html
    assert not re.search(r"<(?!/?(p|strong|a|code|math|m[a-z]+)\b)", html)
    assert not re.search(r"<[^>]*\bon\w+=", html)


def test_the_page_is_all_here_and_may_load_nothing_from_elsewhere(server: Served) -> None:
    index = server.client.get("/")
    parts = re.findall(r'(?:src|href)="(page/[^"]+)"', index.text)
    assert len(parts) == 3
    for part in ["", *parts, "page/turn.js"]:
        response = server.client.get(f"/{part}")
        assert response.status_code == 200
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"https?://(?!www\.w3\.org)", response.text)
    assert server.client.get("/page/../app.py").status_code == 404
    assert server.client.get("/page/%2e%2e%2fapp.py").status_code == 404
