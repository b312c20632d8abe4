"""Many clients at one server, some of which go away in the middle: is everything as it should be, and stays it so?

    python benchmarks/server_load.py [--clients 200] [--seconds 300] [--leave 0.33] [--parallel 16]

Starts hogwild serve with the embedded model. Each client asks for one worksheet after the other, streamed or not, and a
third of the time goes away after a random part of the answer. Told every 30 seconds: requests that were answered,
left, and turned away (429, after which a client waits as long as it is told), and the server's memory. At the end:
whether all answers are those that the run gives alone, whether requests or cells are left, and how memory grew after
the first tenth of the time.

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
from hogwild_local.options import ServerOptions

N_SHEETS = 20


def sheets() -> list[str]:
    with Hogwild(default_model_path(), trust=True) as hogwild:
        return list(hogwild.examples)[:N_SHEETS]


def alone(texts: list[str]) -> list[str]:
    """What each run says when nobody else asks."""
    with Hogwild(default_model_path(), trust=True) as hogwild:
        results = [hogwild.generate(text, seed=1, workers=2) for text in texts]
    return [result.answer or "" if result.reply is None else result.reply for result in results]


class Client:
    """Asks until the time is over."""

    def __init__(self, address: str, texts: list[str], wanted: list[str], leave: float, seed: int) -> None:
        self._address, self._texts, self._wanted, self._leave = address, texts, wanted, leave
        self._chance = random.Random(seed)

    async def go(self, counts: Counter[str], end: float) -> None:
        async with httpx.AsyncClient(base_url=self._address, timeout=120.0) as client:
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
        patience = self._chance.uniform(0.0, 0.5) if leaves else 120.0
        headers = {"Authorization": f"Bearer {self._chance.random()}"}  # each a client of its own
        try:
            async with asyncio.timeout(patience):
                answer = await self._answer(client, body, headers, counts)
        except TimeoutError:
            counts["left"] += 1
            return
        if answer is not None:
            counts["answered"] += 1
            counts["wrong"] += answer != self._wanted[which]

    async def _answer(
        self, client: httpx.AsyncClient, body: dict[str, Any], headers: dict[str, str], counts: Counter[str]
    ) -> str | None:
        async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
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
                if line.startswith("data: {"):
                    for choice in json.loads(line[6:]).get("choices", []):
                        said += choice["delta"].get("content") or ""
            return said


def memory_mb(process: int) -> float:
    text = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


async def load(options: argparse.Namespace, address: str, process: int) -> None:
    texts = sheets()
    wanted = alone(texts)
    counts: Counter[str] = Counter()
    end = time.monotonic() + options.seconds
    clients = [Client(address, texts, wanted, options.leave, seed) for seed in range(options.clients)]
    going = [asyncio.create_task(client.go(counts, end)) for client in clients]
    await asyncio.sleep(options.seconds / 10)
    first = memory_mb(process)
    while time.monotonic() < end:
        await asyncio.sleep(min(30.0, max(0.1, end - time.monotonic())))
        print(f"{dict(counts)}, {memory_mb(process):.0f} MB", flush=True)
    await asyncio.gather(*going)
    await asyncio.sleep(2.0)
    async with httpx.AsyncClient(base_url=address) as client:
        metrics = (await client.get("/metrics")).text
        slots = (await client.get("/slots")).json()
    gauges = dict(re.findall(r"^hogwild:(requests_processing|kv_cache_usage_ratio) (\S+)$", metrics, re.MULTILINE))
    print(f"total: {dict(counts)}")
    print(f"left: {gauges}, slots {len(slots)}; memory {first:.0f} MB, then {memory_mb(process):.0f} MB")


def serve(options: argparse.Namespace) -> None:
    arguments = ["serve", "--trust", "--port", "0", "--data", "", "--parallel", str(options.parallel), "--queue", "300"]
    command = [sys.executable, "-c", "from hogwild_local.cli.main import main; main()", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = next(match[1] for line in process.stderr if (match := re.search(r"listening on (\S+)", line)))
            threading.Thread(target=lambda: [sys.stderr.write(line) for line in process.stderr or ()]).start()
            while httpx.get(f"{address}/health").status_code != 200:
                time.sleep(0.05)
            asyncio.run(load(options, address, process.pid))
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
    parser.add_argument("--parallel", type=int, default=16)
    parser.add_argument("--added", action="store_true")
    options = parser.parse_args()
    if options.added:
        added()
    else:
        serve(options)


if __name__ == "__main__":
    main()
