"""A device of this machine that is not the CPU, where there is one: the logits of the CPU, with all layers there, and
with some."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gpu_helper import GPUS, needs_gpu
from isolated import run_isolated
from test_rpc import F16_SHARE, HYBRIDS_THERE, n_layers, story, story_of_prompts
from test_traces import BOUND_OF_F16_SUMS, BOUNDS, REFERENCE, TRACES, check_replay

from hogwild_local import Model, SharedCache
from hogwild_local.cli.baseline import LlamaBaseline
from hogwild_local.errors import UnsupportedModel
from hogwild_local.options import AttentionForm

pytestmark = needs_gpu
Path_of = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "cache_type", "n_gpu_layers"),
    [("qwen3", "f16", -1), ("qwen3", "f16", 2), ("gemma2", "f32", -1), ("llama", "f32", -1), ("qwen3", "q8_0", -1)],
)
def test_layers_on_a_gpu_give_the_logits_of_the_cpu(
    name: str, cache_type: str, n_gpu_layers: int, tiny_path: Path_of
) -> None:
    # Many GPUs multiply in f16 whatever the types are: the bound is that of an f16 cache. Heads of 20 (llama) are
    # composed: kernels of flash attention know multiples of 8.
    options = {"n_ctx": 264, "type_k": cache_type, "type_v": cache_type}
    with Model(tiny_path(name), n_gpu_layers=0, n_threads=1) as model, SharedCache(model, **options) as cache:
        wanted = story(cache, model.n_vocab)
    with (
        Model(tiny_path(name), n_gpu_layers=n_gpu_layers, n_threads=1) as model,
        SharedCache(model, **options) as cache,
    ):
        got = story(cache, model.n_vocab)
        on_gpu = [device for device in cache.devices if device.name in GPUS]
        assert on_gpu
        assert not on_gpu[0].fused_layers
        assert (cache.n_mirrored > 0) == (name != "llama" and cache_type != "q8_0")
    assert np.isfinite(got).all()
    share = F16_SHARE if cache_type != "q8_0" else 3 * F16_SHARE  # 8 bits instead of 11, after the Hadamard matrix
    assert np.abs(got - wanted).max() <= share * np.abs(wanted).max()


@pytest.mark.parametrize(("name", "part"), HYBRIDS_THERE)
def test_prompts_of_recurrent_layers_on_a_gpu_give_the_logits_of_the_cpu(
    name: str, part: str, tiny_path: Path_of
) -> None:
    options = {"n_ctx": 512, "type_k": "f32", "type_v": "f32"}
    with Model(tiny_path(name), n_gpu_layers=0, n_threads=1) as model, SharedCache(model, **options) as cache:
        wanted = story_of_prompts(cache)
        n_gpu_layers = -1 if part == "all" else n_layers(model) // 2 + 1  # the last one is the output
    with Model(tiny_path(name), n_gpu_layers=n_gpu_layers, n_threads=1) as model:
        try:
            cache = SharedCache(model, **options)
        except UnsupportedModel as error:
            if "one device that has all of the model's operations" not in str(error):
                raise
            pytest.skip("the device lacks an operation")
        with cache:
            got = story_of_prompts(cache)
            assert cache.n_composed > 0
    assert np.isfinite(got).all()
    assert np.abs(got - wanted).max() <= F16_SHARE * np.abs(wanted).max()


def test_one_sequence_on_a_gpu_has_the_logits_of_llama_decode_there(tiny_path: Path_of) -> None:
    # The same kernels on the same numbers, in other batches.
    rng = random.Random(1)
    with Model(tiny_path("qwen3"), n_gpu_layers=-1, n_threads=1) as model:
        tokens = [rng.randrange(model.n_vocab) for _ in range(50)]
        with SharedCache(model, n_ctx=256) as cache:
            prompt, own = cache.block("prompt"), cache.block("own")
            cache.decode([([prompt], tokens[:40])])
            ours = cache.decode([([prompt, own], tokens[40:])])[0]
            assert cache.n_mirrored == 0
        with LlamaBaseline(model, 256, 1) as llama:
            llama.prefill(tokens)
            theirs = np.array(llama.logits(-1)[: model.n_vocab], dtype=np.float32)
    assert np.abs(ours - theirs).max() <= F16_SHARE * np.abs(theirs).max()


def test_large_batches_of_layers_in_cpu_memory_are_computed_on_the_gpu(tiny_path: Path_of) -> None:
    # Op offload, as in llama.cpp: the weights of a layer are sent along. ggml's scheduler says so in its log.
    code = """
import os, sys
import gpu_helper
from hogwild_local import Model, SharedCache, set_log_hook
lines = []
set_log_hook(lambda level, text: lines.append(text))
model = Model(sys.argv[1], n_gpu_layers=0, n_threads=1)
cache = SharedCache(model, n_ctx=256)
block = cache.block("block")
for n_tokens in (64, 1):
    cache.decode([([block], [1] * n_tokens)])
    text = "".join(lines)
    text = text[text.rindex("## SPLIT #0:"):]  # of our graph: llama.cpp's, which it is read from, was made before
    splits = [line for line in text.splitlines() if line.startswith("## SPLIT")]
    print(sum(any(f": {gpu} " in line for gpu in gpu_helper.GPUS) for line in splits), len(splits))
"""
    environment = {"GGML_SCHED_DEBUG": "2", "PYTHONPATH": str(Path(__file__).parent)}
    done = run_isolated(code, tiny_path("qwen3"), environment=environment)
    assert done.returncode == 0, done.stderr
    (n_large, _), (n_small, _) = ([int(word) for word in line.split()] for line in done.stdout.splitlines()[-2:])
    assert n_large > 0, done.stderr
    assert n_small == 0


RANKS = """
import sys
import numpy as np
from gpu_helper import GPUS
from test_runahead import ranks
from hogwild_local import Model, SharedCache
path, tokens = Path(sys.argv[1]), [i * 7 % 200 for i in range(120)]
def logits(model):
    with SharedCache(model, n_ctx=400, n_batch=400, type_k="f32", type_v="f32") as cache:
        return cache.decode([([cache.block()], tokens)])[0]
with Model(path, n_gpu_layers=0, n_threads=1) as model:
    wanted = logits(model)
for device in ("", GPUS[1]):
    with ranks(path, 2, device=device) as (model, group):
        got = logits(model)
        print([*({row[0] for row in rows if row[2] >= 0} for _, rows in model._native.placements())], len(group.traces))
    print(bool(np.abs(got - wanted).max() <= float(sys.argv[2]) * np.abs(wanted).max()))
"""


@pytest.mark.skipif(len(GPUS) < 2, reason="one device but the CPU")
def test_each_rank_takes_another_gpu_unless_told_otherwise(tiny_path: Path_of) -> None:
    prelude = f"import sys; from pathlib import Path; sys.path.append({str(Path(__file__).parent)!r})\n"
    done = run_isolated(prelude + RANKS, tiny_path("llama"), F16_SHARE)
    assert done.returncode == 0, done.stderr
    own, named = [{GPUS[0]}, {GPUS[1]}], [{GPUS[1]}] * 2
    assert done.stdout.splitlines()[-4:] == [f"{own} 2", "True", f"{named} 2", "True"]


@pytest.mark.parametrize("attention", ["auto", "composed"])
@pytest.mark.parametrize("cache_types", BOUNDS, ids="-".join)
@pytest.mark.parametrize("trace", TRACES)
def test_replaying_a_trace_on_a_gpu_gives_the_papers_logits(
    trace: str, cache_types: tuple[str, str], attention: AttentionForm
) -> None:
    # Whatever the types are: see above, and flash attention may add up f16 values in f16.
    path = REFERENCE / f"{trace}.gguf"
    with (
        Model(path, n_gpu_layers=-1, n_threads=2) as model,
        SharedCache(model, 1024, *cache_types, attention=attention) as cache,
    ):
        assert {device.name for device in cache.devices} & set(GPUS)
        check_replay(cache, trace, BOUND_OF_F16_SUMS)
