"""Many clients at one server, some of which go away in the middle: is everything as it should be, and stays it so?

    python benchmarks/server_load.py [--clients 200] [--seconds 300] [--leave 0.33] [--parallel 8]

Starts hogwild serve with the embedded model. Each client has a key of its own, and asks for one worksheet after the
other, streamed or not. A third of the time it goes away: at once, mostly from the queue, or after a random part of the
stream. Told every 30 seconds: requests that were answered,
left, and turned away (429, after which a client waits as long as it is told), and the server's memory. At the end:
whether all answers are those that the run gives alone (wrong), whether each came (lost), whether requests or cells are
left, and how memory grew after the first tenth of the time. It fails where anything is wrong, lost or left. (16 at
once would be too many for 8,192 cells: each has the 512 of its share, and its workers end when these are full.)

    python benchmarks/server_load.py --added

measures what HTTP adds to a pass of four workers: the same run here and through a server in this process, in turn, all
events read as /v1/runs streams them; medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from hogwild_local import Hogwild
from hogwild_local.engine.default_model import default_model_path
from hogwild_local.options import ServerOptions, default_of

N_SHEETS = 20
LOST_S = 600.0
"""A request that is not answered by then never will be."""


def sheets() -> list[str]:
    with Hogwild(default_model_path(), trust=True) as hogwild:
        return list(hogwild.examples)[:N_SHEETS]


def alone(texts: list[str]) -> list[str]:
    """What each run says when nobody else asks."""
    with Hogwild(default_model_path(), trust=True) as hogwild:
        results = [hogwild.generate(text, seed=1, workers=2) for text in texts]
    return [result.answer or "" if result.reply is None else result.reply for result in results]


class Left(Exception):
    """A client has gone from the middle of its stream."""


class Client:
    """Asks until the time is over."""

    def __init__(self, address: str, key: str, texts: list[str], wanted: list[str], leave: float, seed: int) -> None:
        self._address, self._texts, self._wanted, self._leave = address, texts, wanted, leave
        self._headers = {"Authorization": f"Bearer {key}"}
        self._chance = random.Random(seed)

    async def go(self, counts: Counter[str], end: float) -> None:
        async with httpx.AsyncClient(base_url=self._address, timeout=LOST_S) as client:
            while time.monotonic() < end:
                which = self._chance.randrange(len(self._texts))
                try:
                    await self._ask(client, which, counts)
                except httpx.TransportError as error:
                    counts[f"error: {type(error).__name__}"] += 1

    async def _ask(self, client: httpx.AsyncClient, which: int, counts: Counter[str]) -> None:
        message = {"role": "user", "content": self._texts[which]}
        body = {"messages": [message], "seed": 1, "workers": 2, "stream": self._chance.random() < 0.7}
        leaves = self._chance.random() < self._leave
        goes_at_once = leaves and (not body["stream"] or self._chance.random() < 0.5)
        counts["asked"] += 1
        try:
            async with asyncio.timeout(self._chance.uniform(0.0, 1.0) if goes_at_once else LOST_S):
                n_lines = self._chance.randrange(1, 60) if leaves else 10**9
                answer = await self._answer(client, body, n_lines, counts)
        except Left:
            counts["left its stream"] += 1
            return
        except TimeoutError:
            counts["left at once" if goes_at_once else "lost"] += 1
            return
        if answer is not None:
            counts["answered"] += 1
            counts["wrong"] += answer != self._wanted[which]

    async def _answer(
        self, client: httpx.AsyncClient, body: dict[str, Any], n_lines: int, counts: Counter[str]
    ) -> str | None:
        """Raises Left after so many lines of a stream."""
        async with client.stream("POST", "/v1/chat/completions", json=body, headers=self._headers) as response:
            if response.status_code == 429:
                counts["turned away"] += 1
                await asyncio.sleep(float(response.headers["retry-after"]) * self._chance.random())
                return None
            if response.status_code != 200:
                counts[f"status {response.status_code}"] += 1
                return None
            if not body["stream"]:
                return json.loads(await response.aread())["choices"][0]["message"]["content"]  # type: ignore[no-any-return]
            said = ""
            async for line in response.aiter_lines():
                if (n_lines := n_lines - 1) < 0:
                    raise Left
                if line.startswith("data: {"):
                    for choice in json.loads(line[6:]).get("choices", []):
                        said += choice["delta"].get("content") or ""
            return said


def memory_mb(process: int) -> float:
    text = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


async def load(options: argparse.Namespace, address: str, keys: list[str], process: int) -> None:
    texts = sheets()
    wanted = alone(texts)
    counts: Counter[str] = Counter()
    end = time.monotonic() + options.seconds
    clients = [Client(address, key, texts, wanted, options.leave, seed) for seed, key in enumerate(keys)]
    going = [asyncio.create_task(client.go(counts, end)) for client in clients]
    await asyncio.sleep(options.seconds / 10)
    first = memory_mb(process)
    while time.monotonic() < end:
        await asyncio.sleep(min(30.0, max(0.1, end - time.monotonic())))
        print(f"{dict(counts)}, {memory_mb(process):.0f} MB", flush=True)
    await asyncio.gather(*going)
    await asyncio.sleep(2.0)
    left = await left_at(address, keys[0])
    print(f"total: {dict(counts)}")
    print(f"left: {left}; memory {first:.0f} MB, then {memory_mb(process):.0f} MB")
    gone = ("asked", "answered", "left at once", "left its stream", "turned away")
    faults = {name: n for name, n in {**counts, **left}.items() if name not in gone and float(n)}
    if faults or counts["asked"] != sum(counts[name] for name in gone[1:]):
        raise SystemExit(f"not as it should be: {faults}, of {counts['asked']} requests")


async def left_at(address: str, key: str) -> dict[str, float]:
    """Requests, cells and slots that are still in use, and requests that have failed."""
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=LOST_S) as client:
        metrics = (await client.get("/metrics")).text
        slots = (await client.get("/slots")).json()
    names = "requests_processing|requests_deferred|failed_requests_total|kv_cache_usage_ratio"
    gauges = re.findall(rf"^hogwild:({names}) (\S+)$", metrics, re.MULTILINE)
    return {**{name: float(value) for name, value in gauges}, "slots": len(slots)}


def serve(options: argparse.Namespace) -> None:
    keys = [f"key-{n}" for n in range(options.clients)]
    arguments = ["serve", "--trust", "--port", "0", "--data", "", "--parallel", str(options.parallel), "--queue", "300"]
    arguments += [part for key in keys for part in ("--api-key", key)]
    command = [sys.executable, "-P", "-c", "from hogwild_local.cli.main import main; main()", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = next(match[1] for line in process.stderr if (match := re.search(r"listening on (\S+)", line)))
            threading.Thread(target=lambda: [sys.stderr.write(line) for line in process.stderr or ()]).start()
            while httpx.get(f"{address}/health").status_code != 200:
                time.sleep(0.05)
            asyncio.run(load(options, address, keys, process.pid))
        finally:
            process.terminate()


def added() -> None:
    """What HTTP adds to a pass."""
    from hogwild_local.server.listen import Listener
    from hogwild_local.server.service import Service

    hogwild = Hogwild(default_model_path(), trust=True)
    service = Service(lambda: hogwild, ServerOptions(port=0, data=""), {}, "default")
    listener = Listener(service, "separate", None, None)
    threading.Thread(target=listener.serve, daemon=True).start()
    client = httpx.Client(base_url=listener.address)
    sheet, rounds = hogwild.examples[0], []
    for _ in range(40):
        start = time.perf_counter()
        n = sum(event.kind() == "pass_ended" for event in hogwild.stream(sheet, seed=1, workers=4))
        here = (time.perf_counter() - start) / n
        start = time.perf_counter()
        run = client.post("/v1/runs", json={"prompt": sheet, "seed": 1, "workers": 4}).json()["id"]
        assert client.get(f"/v1/runs/{run}/events").text.count("event: pass_ended") == n
        rounds.append((here, (time.perf_counter() - start) / n))
    here, there = (1e3 * median(each) for each in zip(*rounds[5:], strict=True))
    print(f"a pass of four workers: here {here:.3f} ms, over HTTP {there:.3f} ms: {there - here:.3f} ms more")
    listener.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--leave", type=float, default=0.33)
    parser.add_argument("--parallel", type=int, default=default_of(ServerOptions, "parallel"))
    parser.add_argument("--added", action="store_true")
    options = parser.parse_args()
    if options.added:
        added()
    else:
        serve(options)


if __name__ == "__main__":
    main()
