"""docs/server.md: each command works as it is written, and each route has one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import httpx
from server_helper import served, until

DOCS = Path(__file__).parents[1] / "docs" / "server.md"
HOST = "localhost:8080"


def commands() -> Iterator[list[str]]:
    """Arguments of each curl in an indented block; one goes on to the next lines while a quote is open."""
    begun = ""
    for line in DOCS.read_text(encoding="utf-8").splitlines():
        if not begun and not line.startswith("    curl "):
            continue
        begun += line + "\n"
        try:
            arguments = shlex.split(begun, comments=True)
        except ValueError:
            continue
        yield arguments[1:]
        begun = ""


def request_of(arguments: list[str], names: dict[str, str]) -> tuple[str, str, dict[str, str], str | None]:
    """Method, path, headers and body, as curl reads them."""
    method, headers, body, path = "", {}, None, ""
    rest = iter(arguments)
    for argument in rest:
        match argument:
            case "-N":
                pass
            case "-X":
                method = next(rest)
            case "-d":
                body = next(rest)
            case "-H":
                name, _, value = next(rest).partition(": ")
                headers[name] = value
            case _:
                assert argument.startswith(HOST), argument
                path = re.sub(r"\$(\w+)", lambda match: names[match[1]], argument.removeprefix(HOST))
    return method or ("GET" if body is None else "POST"), path, headers, body


def test_each_command_works_and_each_route_has_one() -> None:
    names: dict[str, str] = {}
    called = set()
    with served() as server:
        for arguments in commands():
            method, path, headers, body = request_of(arguments, names)
            response = server.client.request(method, path, headers=headers, content=body)
            is_over = response.status_code == 409  # a run of this model ends within a moment
            assert response.is_success or (is_over and path.startswith("/v1/runs/")), f"{arguments}: {response.text}"
            if method == "POST" and response.is_success and (made := re.match(r'{"id":"(run|chat)-', response.text)):
                name = "CHAT" if made[1] == "chat" and "fork" not in path else "RUN" if made[1] == "run" else "FORK"
                names[name] = response.json()["id"]
            if path.endswith("/events") and (run := server.client.get(path.removesuffix("/events"))).is_success:
                until(lambda run=run: server.client.get(f"/v1/runs/{run.json()['id']}").json()["status"] == "ended")
            called.add((method, httpx.URL(path).path))
        for route in server.application.routes:
            form = re.compile(re.sub(r"{\w+}", "[^/]+", route.path))
            either = re.compile(form.pattern.removeprefix("/v1"))
            for method in route.methods - {"HEAD"}:
                is_called = any(
                    method == by and (form.fullmatch(path) or either.fullmatch(path.removeprefix("/v1")))
                    for by, path in called
                )
                assert is_called or route.path == "/" or route.path.startswith("/page/"), (method, route.path)
