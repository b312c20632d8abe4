"""hogwild serve against llama-server: several conversations of one worker each, on the same machine and model.

    python benchmarks/server_against_llama.py model-q4_0.gguf [--llama-server PATH] [--threads 2] [--rounds 3]
        [--conversations 8] [--prompt 512] [--tokens 64]

llama-server is built from the sdist of the llama-cpp-python that pyproject.toml names, once, into --build (CMake, a
C++ compiler; minutes), unless --llama-server says where one is. Both servers are there all the time, and are asked in
turn: all conversations at once, each with another text of --prompt tokens, streamed. Of llama-server each of these
settings is asked: flash attention on and off, its cache unified and not; the best one counts. The model may have random
weights: both write as many tokens as they are told to, whatever they are (the end of text is forbidden).

Told, medians over the rounds: milliseconds to a conversation's first token (mean of the conversations), tokens a second
of all conversations together from the first to the last token, and the ratios; above 1 hogwild is better.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import httpx

ROOT = Path(__file__).parents[1]
SETTINGS = [("on", True), ("on", False), ("off", True), ("off", False)]


def built(folder: Path) -> Path:
    """llama-server, compiled if it is not there."""
    server = folder / "build" / "bin" / "llama-server"
    if not server.exists():
        sources = folder / "llama.cpp"
        parts = ["."]
        subprocess.run([sys.executable, ROOT / "scripts" / "llama-sources", sources, *parts], check=True)
        # Files of an archive may be from tomorrow: CMake would run for ever.
        off = ("LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF", "BUILD_SHARED_LIBS=OFF", "LLAMA_CURL=OFF")
        options = [f"-D{option}" for option in ("CMAKE_SUPPRESS_REGENERATION=ON", "CMAKE_BUILD_TYPE=Release", *off)]
        subprocess.run(["cmake", "-S", sources, "-B", folder / "build", *options], check=True)
        subprocess.run(["cmake", "--build", folder / "build", "--target", "llama-server", "-j"], check=True)
    return server


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


async def conversation(client: httpx.AsyncClient, path: str, body: dict[str, Any], is_token: Any) -> list[float]:
    """When each token came."""
    times = []
    async with client.stream("POST", path, json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: {") and is_token(line[6:]):
                times.append(time.perf_counter())
    return times


async def asked(client: httpx.AsyncClient, path: str, bodies: list[dict[str, Any]], is_token: Any, n: int) -> Figures:
    """All at once."""
    start = time.perf_counter()
    times = await asyncio.gather(*(conversation(client, path, body, is_token) for body in bodies))
    for each in times:
        if len(each) < n:
            raise SystemExit(f"{len(each)} tokens instead of {n}")
    first = min(each[0] for each in times)
    seconds = max(each[n - 1] for each in times) - first
    return Figures(1e3 * mean(each[0] - start for each in times), n * len(times) / seconds)


def of_llama(prompt: list[int], n: int) -> dict[str, Any]:
    greedy = {"temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
    return {"prompt": prompt, "n_predict": n, "stream": True, **greedy}


def of_hogwild(prompt: str, n: int, eos: int) -> dict[str, Any]:
    """One worker, whose tokens are counted as they come: passes are the budget."""
    message = {"role": "user", "content": prompt}
    fixed = {"workers": 1, "max_passes": n, "cache_prompt": False, "temperature": 0.0, "logit_bias": {str(eos): False}}
    return {"input": [message], "stream": True, "max_output_tokens": 1, **fixed}


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
            for round_ in range(options.rounds):
                made = texts(plain, n, options.prompt, round_)
                bodies = [of_llama(tokens, options.tokens) for _, tokens in made]
                figures[0].append(await asked(one, "/completion", bodies, _has_content, options.tokens))
                bodies = [of_hogwild(text, options.tokens, ids[0]) for text, _ in made]
                figures[1].append(await asked(other, "/v1/responses", bodies, _is_thought, options.tokens))
    return figures


def _has_content(line: str) -> bool:
    return '"stop":false' in line.replace(" ", "")


def _is_thought(line: str) -> bool:
    return '"type":"response.reasoning_text.delta"' in line


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
    options = parser.parse_args()
    llama = options.llama_server or built(options.build)
    best: dict[str, float] = {}
    for fa, unified in SETTINGS:
        theirs, ours = asyncio.run(measured(options, llama, fa, unified))
        first = [median(each.first_ms for each in side) for side in (theirs, ours)]
        speed = [median(each.tokens_per_s for each in side) for side in (theirs, ours)]
        ratios = {"first token": first[0] / first[1], "tokens a second": speed[1] / speed[0]}
        for name, ratio in ratios.items():
            best[name] = min(best.get(name, ratio), ratio)
        print(f"-fa {fa}, {'unified' if unified else 'split'} cache:", flush=True)
        print(f"  first token {first[0]:.0f} ms, here {first[1]:.0f} ms", flush=True)
        print(f"  tokens a second {speed[0]:.1f}, here {speed[1]:.1f}", flush=True)
    print("against its best setting: " + ", ".join(f"{name} {ratio:.2f}x" for name, ratio in best.items()))


if __name__ == "__main__":
    main()
