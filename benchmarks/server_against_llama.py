"""hogwild serve against llama-server: several conversations of one worker each, on the same machine and model.

    python benchmarks/server_against_llama.py model-q4_0.gguf [--llama-server PATH] [--threads 2] [--rounds 3]
        [--conversations 8] [--prompt 512] [--tokens 64] [--fa on] [--cache unified]

llama-server is built from the sdist of the llama-cpp-python that pyproject.toml names, once, into --build (CMake, a
C++ compiler; minutes), on the libraries that llama-cpp-python has installed: both compute with the same ones.
--llama-server says where one is. Both servers are there all the time, and are asked in
turn: all conversations at once, each with another text of --prompt tokens, streamed. Both keep prompts as they do
unless told otherwise, and each has answered something short before: what stands before every text here, words for the
worker, is computed then, and no text is ever asked of the same server again. Of llama-server each of these
settings is asked: flash attention on and off, its cache unified and split (--fa, --cache: only these); the best one
counts. The model may have random
weights: both write as many tokens as they are told to, whatever they are (the end of text is forbidden).

Told, medians over the rounds: milliseconds to a conversation's first token, tokens a second of a conversation behind
its first token (both means of the conversations), seconds until all have ended, and the ratios; above 1 hogwild is
better. The three belong together: who computes one prompt after the other has the first of them sooner, and writes
while the others wait.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any

import httpx

ROOT = Path(__file__).parents[1]
PARTS = ("common", "ggml/include", "include", "scripts", "tools/mtmd", "tools/server", "tools/ui", "vendor")


def built(folder: Path) -> Path:
    """llama-server, compiled if it is not there."""
    server = folder / "build" / "llama-server"
    if not server.exists():
        sources = folder / "llama.cpp"
        subprocess.run([sys.executable, ROOT / "scripts" / "llama-sources", sources, *PARTS], check=True)
        # Files of an archive may be from tomorrow: CMake would run for ever.
        defined = ("CMAKE_SUPPRESS_REGENERATION=ON", "CMAKE_BUILD_TYPE=Release", f"LLAMA_CPP={sources}")
        options = [f"-D{each}" for each in (*defined, f"LIBRARIES={libraries()}")]
        project = ROOT / "benchmarks" / "llama_server"
        subprocess.run(["cmake", "-S", project, "-B", folder / "build", *options], check=True)
        subprocess.run(["cmake", "--build", folder / "build", "-j", str(os.cpu_count())], check=True)
    return server


def libraries() -> Path:
    """Where llama-cpp-python's lie, with their names for the linker."""
    return Path(str(distribution("llama-cpp-python").locate_file("lib")))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as made:
        return int(made.getsockname()[1])


@contextlib.contextmanager
def serving(command: list[str], port: int) -> Iterator[httpx.AsyncClient]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"{address}/health").status_code == 200:
                        break
                if process.poll() is not None:
                    raise SystemExit(f"it ended: {' '.join(command)}")
                time.sleep(0.2)
            yield httpx.AsyncClient(base_url=address, timeout=3600.0, limits=httpx.Limits(max_connections=None))
        finally:
            process.terminate()


@dataclass(frozen=True)
class Figures:
    first_ms: float
    tokens_per_s: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.first_ms:.0f} ms, {self.tokens_per_s:.1f} tokens/s, all {self.seconds:.1f} s"


@dataclass
class Conversation:
    """When it had something to show first and last, and how many tokens it wrote."""

    first: float = 0.0
    last: float = 0.0
    n_tokens: int = 0

    def shows(self) -> None:
        self.last = time.perf_counter()
        self.first = self.first or self.last


async def of_llama(client: httpx.AsyncClient, prompt: list[int], n: int) -> Conversation:
    greedy = {"temperature": 0.0, "ignore_eos": True}
    made = Conversation()
    async for event in events_of(
        client, "POST", "/completion", {"prompt": prompt, "n_predict": n, "stream": True, **greedy}
    ):
        if event.get("content"):
            made.shows()
        made.n_tokens = event.get("tokens_predicted", 0)
    return made


async def of_hogwild(client: httpx.AsyncClient, prompt: str, n: int, eos: int) -> Conversation:
    """One worker, whose passes are the budget."""
    fixed = {"workers": 1, "max_passes": n, "temperature": 0.0, "logit_bias": {str(eos): False}}
    response = await client.post("/v1/runs", json={"prompt": prompt, "max_tokens": 1, **fixed})
    response.raise_for_status()
    made = Conversation()
    async for event in events_of(client, "GET", response.headers["location"] + "/events"):
        if event.get("event") == "token" and event["token"] is not None:
            made.n_tokens += 1
            if event["text"]:
                made.shows()
    return made


async def events_of(
    client: httpx.AsyncClient, method: str, path: str, body: Any = None
) -> AsyncIterator[dict[str, Any]]:
    async with client.stream(method, path, json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                yield json.loads(line[6:])


async def asked(conversations: list[Coroutine[Any, Any, Conversation]], n: int) -> Figures:
    """All at once."""
    start = time.perf_counter()
    done = await asyncio.gather(*conversations)
    if short := [each.n_tokens for each in done if each.n_tokens < n]:
        raise SystemExit(f"{short} tokens instead of {n}")
    speeds = [(each.n_tokens - 1) / (each.last - each.first) for each in done]
    seconds = max(each.last for each in done) - start
    return Figures(1e3 * mean(each.first - start for each in done), mean(speeds), seconds)


def texts(client: httpx.Client, n_texts: int, n_tokens: int, seed: int) -> list[tuple[str, list[int]]]:
    """Texts of so many tokens, and these."""
    chance, made = random.Random(seed), []
    for _ in range(n_texts):
        words = " ".join(str(chance.randrange(1000)) for _ in range(n_tokens))
        tokens = client.post("/tokenize", json={"content": words}).json()["tokens"][:n_tokens]
        made.append((client.post("/detokenize", json={"tokens": tokens}).json()["content"], tokens))
    return made


async def measured(
    options: argparse.Namespace, llama: Path, fa: str, unified: bool
) -> tuple[list[Figures], list[Figures]]:
    n, model = options.conversations, str(options.model)
    n_ctx = n * (options.prompt + options.tokens + 512)
    ports = free_port(), free_port()
    theirs = [str(llama), "-m", model, "--port", str(ports[0]), "-t", str(options.threads), "-fa", fa]
    theirs += ["--parallel", str(n), "-c", str(n_ctx), "--kv-unified" if unified else "--no-kv-unified", "--no-webui"]
    ours = [sys.executable, "-c", "from hogwild_local.cli.main import main; main()", "serve", "--trust", "-m", model]
    ours += ["--port", str(ports[1]), "--threads", str(options.threads), "--ctx", str(2 * n_ctx), "--data", ""]
    ours += ["--parallel", str(2 * n), "--workers", "1", "--no-finisher"]
    with serving(theirs, ports[0]) as one, serving(ours, ports[1]) as other:
        figures: tuple[list[Figures], list[Figures]] = ([], [])
        eos = json.loads((await one.get("/props")).text).get("eos_token", "")
        with httpx.Client(base_url=str(other.base_url), timeout=600.0) as plain:
            ids = plain.post("/tokenize", json={"content": eos}).json()["tokens"] if eos else [0]
            ((first, tokens),) = texts(plain, 1, 16, options.rounds)
            await asked([of_llama(one, tokens, 4), of_hogwild(other, first, 4, ids[0])], 4)
            for round_ in range(options.rounds):
                made = texts(plain, n, options.prompt, round_)
                theirs_now = [of_llama(one, tokens, options.tokens) for _, tokens in made]
                figures[0].append(await asked(theirs_now, options.tokens))
                ours_now = [of_hogwild(other, text, options.tokens, ids[0]) for text, _ in made]
                figures[1].append(await asked(ours_now, options.tokens))
                print(f"  llama-server {figures[0][-1]}, here {figures[1][-1]}", flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-server", type=Path)
    parser.add_argument("--build", type=Path, default=Path.home() / ".cache" / "hogwild-local" / "llama-server")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--conversations", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--fa", choices=("on", "off"), action="append")
    parser.add_argument("--cache", choices=("unified", "split"), action="append")
    options = parser.parse_args()
    llama = options.llama_server or built(options.build)
    best: dict[str, float] = {}
    for fa, cache in product(options.fa or ("on", "off"), options.cache or ("unified", "split")):
        theirs, ours = asyncio.run(measured(options, llama, fa, cache == "unified"))
        first, speed, whole = (
            [median(getattr(each, name) for each in side) for side in (theirs, ours)]
            for name in ("first_ms", "tokens_per_s", "seconds")
        )
        ratios = {
            "first token": first[0] / first[1],
            "tokens a second": speed[1] / speed[0],
            "all": whole[0] / whole[1],
        }
        for name, ratio in ratios.items():
            best[name] = min(best.get(name, ratio), ratio)
        print(f"-fa {fa}, {cache} cache, medians:", flush=True)
        print(f"  first token {first[0]:.0f} ms, here {first[1]:.0f} ms", flush=True)
        print(f"  tokens a second {speed[0]:.1f}, here {speed[1]:.1f}", flush=True)
        print(f"  all {whole[0]:.1f} s, here {whole[1]:.1f} s", flush=True)
    print("against its best setting: " + ", ".join(f"{name} {ratio:.2f}x" for name, ratio in best.items()))


if __name__ == "__main__":
    main()
