"""The real engine under the real command line and the Python interface, on tiny models."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hogwild_local import Hogwild, Model, SharedCache, events, set_log_hook
from hogwild_local.engine.default_model import default_model_path


def hogwild(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = "from hogwild_local.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-P", "-c", command, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def texts(path: Path, **options: object) -> dict[str, str]:
    with Hogwild(path, n_ctx=3000, n_threads=1) as hw:
        return dict(hw.generate("Share the work.", **{"max_passes": 40, "seed": 5, "reply": False, **options}).texts)


def test_the_embedded_model_runs_and_says_in_a_line_each_what_it_is_and_holds() -> None:
    done = hogwild("run", "--max-passes", "5", "--threads", "1", "a=01+02")
    assert done.returncode == 0
    what, room = done.stderr.splitlines()
    assert "embedded" in what
    assert "context 8192 tokens" in room
    assert "tokens/s" in done.stdout.splitlines()[-1]


def test_json_lines_tell_a_whole_run() -> None:
    done = hogwild("run", "--json", "--max-passes", "5", "--seed", "1", "--threads", "1", "--workers", "3", "a=01+02")
    kinds = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    assert (kinds[0], kinds[-1]) == ("run_started", "run_ended")
    assert kinds.count("token") >= 5 * 3 - 2


def test_a_missing_model_is_one_clear_line_and_exit_code_1() -> None:
    done = hogwild("run", "-m", "no-such-file.gguf", "Hello")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "no-such-file.gguf" in done.stderr


def test_bench_writes_a_table_and_json(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = hogwild("bench", "-w", "1,2", "-c", "32", "--rounds", "1", "--passes", "4", "-t", "1", "--json", str(file))
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())["rows"]
    assert [(row["kind"], row["workers"]) for row in rows] == [("prefill", 0), ("decode", 1), ("decode", 2)]
    assert all(row["ratio"] > 0 for row in rows)
    assert len(done.stdout.splitlines()) == 2 + len(rows)


@pytest.mark.parametrize("layout", ["contiguous", "interleaved", "combined"])
@pytest.mark.parametrize("workers", [1, 2, 5, 16])
def test_every_layout_runs_with_any_number_of_workers(
    layout: str, workers: int, tiny_path: Callable[..., Path]
) -> None:
    with Hogwild(tiny_path("qwen3"), n_ctx=6000, n_threads=1) as hw:
        for event in hw.stream("Go.", workers=workers, layout=layout, max_passes=25, seed=2, reply=False):
            last = event
        assert isinstance(last, events.RunEnded)
        assert last.usage.completion_tokens >= 25 * workers - workers
        assert hw.n_free == hw.n_ctx


def test_the_same_seed_gives_the_same_text_and_another_one_another(tiny_path: Callable[..., Path]) -> None:
    path = tiny_path("qwen3")
    assert texts(path) == texts(path)
    assert texts(path) != texts(path, seed=6)


def test_fused_and_composed_attention_write_the_same_greedy_text(tiny_path: Callable[..., Path]) -> None:
    # f32 weights and cache: the forms differ by rounding only, and greedy choices have margins above that.
    from hogwild_local import SamplingParams

    results = []
    for attention in ("fused", "ggml"):
        with Hogwild(
            tiny_path("llama"), n_ctx=3000, n_threads=1, type_k="f32", type_v="f32", attention=attention
        ) as hw:
            sampling = SamplingParams(temperature=0)
            results.append(dict(hw.generate("Go.", max_passes=30, seed=1, reply=False, sampling=sampling).texts))
    assert results[0] == results[1]


def test_runs_at_the_same_time_write_what_they_write_alone() -> None:
    with Hogwild(default_model_path(), n_threads=1) as hw:  # which samples greedily
        cases = [(prompt, 1 + i % 4) for i, prompt in enumerate(hw.examples[:6])]

        def solve(case: tuple[str, int]) -> tuple[object, ...]:
            result = hw.generate(case[0], workers=case[1])
            return result.answer, dict(result.texts), result.history, result.timings.passes

        alone = [solve(case) for case in cases]
        assert all(answer for answer, *_ in alone)
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(solve, cases)) == alone
        assert hw.n_free == hw.n_ctx


def test_runs_in_turn_in_one_thread_write_what_they_write_alone() -> None:
    with Hogwild(default_model_path(), n_threads=1) as hw:
        alone = [hw.generate(prompt).texts for prompt in hw.examples[:2]]
        runs = [hw.stream(prompt) for prompt in hw.examples[:2]]
        texts: list[dict[str, str]] = [dict.fromkeys(run.workers, "") for run in runs]
        while not all(run.done for run in runs):
            for run, written in zip(runs, texts, strict=True):
                event = next(run, None)
                if isinstance(event, events.Token) and event.worker:
                    written[event.worker] += event.text
        assert texts == alone


def test_break_ends_a_run_and_the_object_runs_again(tiny_path: Callable[..., Path]) -> None:
    with Hogwild(tiny_path("qwen3"), n_ctx=3000, n_threads=1) as hw:
        for event in hw.stream("Go.", max_passes=1000, seed=1):
            if isinstance(event, events.Token) and event.n_pass >= 5:
                break
        assert hw.generate("Go.", max_passes=3, seed=1, reply=False).timings.passes >= 3


def test_the_log_hook_gets_llama_cpps_lines_and_none_after_it_is_taken_off(tiny_path: Callable[..., Path]) -> None:
    lines: list[str] = []
    set_log_hook(lambda level, text: lines.append(text))
    try:
        with Model(tiny_path("llama"), n_threads=1) as model, SharedCache(model, n_ctx=64):
            pass
    finally:
        set_log_hook(None)
    assert any("llama" in line for line in lines)
    n = len(lines)
    Model(tiny_path("llama"), n_threads=1).close()
    assert len(lines) == n


def test_the_default_model_is_packaged() -> None:
    assert default_model_path().is_file()
