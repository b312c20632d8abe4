"""Options: default, choices, range and help stand in one place, and whoever takes them takes them from there."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from documents import command_of
from fakes import TINY_STYLE, FakeEngine, FakeModel

from hogwild_local import Model, Sampler
from hogwild_local.checks import number, whole
from hogwild_local.cli.options import flags_of
from hogwild_local.errors import InvalidArgument
from hogwild_local.hogwild import Hogwild
from hogwild_local.options import (
    EngineOptions,
    Options,
    RunOptions,
    SamplingParams,
    default_of,
    options_of,
)
from hogwild_local.workers.layouts import LAYOUTS

ROOT = Path(__file__).parent.parent
EVERY = [(kind, name) for kind in (EngineOptions, RunOptions, SamplingParams) for name in options_of(kind)]


def parameters(command: str) -> dict[str, click.Option]:
    """By long name."""
    return {param.opts[-1]: param for param in command_of(command).params if isinstance(param, click.Option)}


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=lambda value: getattr(value, "__name__", value))
def test_the_command_line_takes_help_default_and_choices_from_the_field(kind: type[Options], name: str) -> None:
    option, default = options_of(kind)[name], default_of(kind, name)
    if name in ("penalty_last_n", "cache_prompt", "logprobs") or (kind, name) == (SamplingParams, "seed"):
        assert flags_of(name)[-1] not in parameters("run") or name == "seed"
        return
    shown = parameters("run")[flags_of(name)[-1]]
    assert shown.help == option.help
    assert re.fullmatch(r"[A-Z].*\.", option.help), "no sentence"
    if kind is not SamplingParams:
        assert shown.default == default
    if option.choices:
        assert tuple(shown.type.choices) == option.choices  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", ["run", "eval", "bench"])
def test_an_option_that_commands_share_is_the_same_in_each(command: str) -> None:
    theirs = parameters(command)
    for name in ("n_batch", "n_gpu_layers", "n_threads", "type_k", "attention", "split_mode"):
        flag = flags_of(name)[-1]
        assert (theirs[flag].help, theirs[flag].default) == (
            parameters("run")[flag].help,
            default_of(EngineOptions, name),
        )


def test_python_sees_every_keyword_with_its_default() -> None:
    assert inspect.signature(Hogwild.stream).parameters["max_passes"].default == default_of(RunOptions, "max_passes")
    assert set(options_of(RunOptions)) < set(inspect.signature(Hogwild.generate).parameters)
    assert set(options_of(EngineOptions)) < set(inspect.signature(Hogwild).parameters)


def test_the_names_of_layouts_are_those_of_the_layouts() -> None:
    assert set(options_of(RunOptions)["layout"].choices) == set(LAYOUTS)


def test_the_two_ways_to_give_a_prompt_are_one() -> None:
    with Hogwild(model="m.gguf", prompts=TINY_STYLE, engine=FakeEngine().engine) as hw:  # type: ignore[call-arg]
        assert hw.generate(prompt="P", seed=1, max_passes=2).texts == hw.generate("P", seed=1, max_passes=2).texts  # type: ignore[call-arg]


# -- values -------------------------------------------------------------------------------------------------------


def test_numbers_of_numpy_are_numbers_everywhere() -> None:
    fake, three = FakeEngine(), np.int64(3)
    params = SamplingParams(temperature=np.float32(0.5), top_k=three, seed=three)
    assert (type(params.top_k), type(params.temperature)) == (int, float)
    sizes: dict[str, Any] = {"n_ctx": np.int64(900), "n_batch": np.int32(64), "n_threads": three, "n_gpu_layers": three}
    with Hogwild("m.gguf", prompts=TINY_STYLE, engine=fake.engine, **sizes) as hw:
        assert type(fake.model_arguments["n_threads"]) is int
        options: dict[str, Any] = {
            "workers": three,
            "max_passes": three,
            "seed": np.uint64(7),
            "finisher_tokens": three,
        }
        result = hw.generate("P", sampling=params, finisher=False, redundancy_every=three, **options)
    assert (len(result.texts), result.timings.passes, result.seed) == (3, 3, 7)


@pytest.mark.parametrize(
    "value",
    [10**400, -(10**400), float("nan"), float("inf"), "1", b"1", None, True, [1], 1j],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_finite_number_is_named(value: object) -> None:
    with pytest.raises(InvalidArgument, match="temperature"):
        SamplingParams(temperature=value)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="scale"):
        number(value, "scale")


@pytest.mark.parametrize(
    "value", [1.0, "1", None, True, [1], 10**5000, -(10**5000), 2**31], ids=lambda value: type(value).__name__
)
def test_what_is_no_whole_number_in_range_is_named(value: object) -> None:
    with pytest.raises(InvalidArgument, match="n_x"):
        whole(value, "n_x", 0)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"layout": 3}, "layout"),
        ({"stop": 5}, "stop"),
        ({"stop": b"a"}, "stop"),
        ({"seed": 2**64}, "seed"),
        ({"workers": ["A", "\ud800"]}, "workers.*no character"),
        ({"workers": 2.0}, "workers"),
        ({"prompt": "a\ud800"}, "prompt.*no character"),
        ({"prompt": [{"role": "user", "content": "\ud800"}]}, "prompt.*no character"),
        ({"prompt": 3}, "prompt"),
    ],
)
def test_a_wrong_value_is_named_and_nothing_is_fed(options: dict[str, Any], fault: str) -> None:
    fake = FakeEngine()
    with Hogwild("m.gguf", prompts=TINY_STYLE, engine=fake.engine) as hw:
        with pytest.raises(InvalidArgument, match=fault):
            hw.stream(**{"prompt": "P", **options})  # type: ignore[arg-type]
        assert fake.cache
        assert fake.cache.passes == []


@pytest.mark.parametrize("settings", [{"n_batch": "5"}, {"type_k": "f8"}, {"attention": 1}, {"split_mode": "row"},
                                      {"progress": 3}, {"engine": "fast"}, {"isolate": 1}], ids=str)  # fmt: skip
def test_a_wrong_setting_is_named(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(settings))):
        Hogwild("m.gguf", **{"engine": FakeEngine().engine, **settings})


@pytest.mark.parametrize("model", [None, 3, b"m.gguf", ["m.gguf"]])
def test_what_is_no_model_is_named(model: object) -> None:
    with pytest.raises(InvalidArgument, match="model must be the path"):
        Hogwild(model, engine=FakeEngine().engine)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["split_mode", "n_gpu_layers", "tensor_split", "main_gpu", "rpc", "lora", "progress"])
def test_how_to_load_a_model_is_refused_beside_a_loaded_one(name: str) -> None:
    values = {"split_mode": "none", "tensor_split": [1.0], "rpc": "a:1", "lora": ["a"], "progress": print}
    fake = FakeEngine()
    with pytest.raises(InvalidArgument, match=name):
        Hogwild(fake.model, engine=fake.engine, **{name: values.get(name, 1)})  # type: ignore[arg-type]


def test_more_workers_than_a_pass_holds_are_refused_before_they_get_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hogwild_local.workers.limits.default_names", lambda n: pytest.fail("names were made"))
    with Hogwild("m.gguf", engine=FakeEngine().engine) as hw, pytest.raises(InvalidArgument, match="n_batch"):
        hw.stream("P", workers=10**8)


# -- the length that a model was trained for ----------------------------------------------------------------------


def trained_for(n: int) -> FakeModel:
    model = FakeModel()
    model.n_ctx_train = n
    return model


def test_a_cache_beyond_what_the_model_was_trained_for_is_warned_of() -> None:
    fake = FakeEngine(model=trained_for(1000))
    with pytest.warns(UserWarning, match=r"n_ctx is 1001.*1000") as caught:
        Hogwild("m.gguf", n_ctx=1001, engine=fake.engine).close()
    assert caught[0].filename == __file__
    Hogwild("m.gguf", n_ctx=1000, engine=fake.engine).close()


# -- what a model can read ----------------------------------------------------------------------------------------


class Deaf(FakeModel):
    """A tokenizer that drops capital letters, without a word."""

    def tokenize(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        return super().tokenize("".join(char for char in text if not char.isupper()), add_special, parse_special)


def test_a_prompt_that_the_model_cannot_read_is_refused_and_its_characters_named() -> None:
    with Hogwild("m.gguf", prompts=TINY_STYLE, engine=FakeEngine(model=Deaf()).engine) as hw:
        with pytest.raises(InvalidArgument, match=r"prompt: .* no tokens for W I$"):
            next(hw.stream("What Is it?"))
        hw.stream("what is it?\n\té").close()


def test_what_the_model_has_said_itself_is_not_refused() -> None:
    """A reply may be of tokens that no text is cut into."""
    with Hogwild("m.gguf", prompts=TINY_STYLE, engine=FakeEngine(model=Deaf()).engine) as hw:
        said = [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "I."}]
        next(hw.stream([*said, {"role": "user", "content": "why?"}], reply=False, max_passes=1))
        with pytest.raises(InvalidArgument, match=r"no tokens for W$"):
            next(hw.stream([*said, {"role": "user", "content": "Why?"}], reply=False))


# -- the layer below ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        (lambda model: model.detokenize(None), "ids"),
        (lambda model: model.detokenize("ab"), "ids"),
        (lambda model: model.detokenize([1], special="no"), "special"),
        (lambda model: model.tokenize("a", add_special="no"), "add_special"),
        (lambda model: model.tokenize("a", parse_special=1), "parse_special"),
        (lambda model: Sampler(model, {"temperature": 0}), "params"),
        (lambda model: Sampler(model, SamplingParams(logit_bias={1: 10**400})), "logit_bias"),
        (lambda model: Model(model.path, progress=3), "progress"),
        (lambda model: Model(model.path, tensor_split=[10**400]), "tensor_split"),
        (lambda model: Model(model.path, lora=[("a", 10**400)]), "lora"),
    ],
)
def test_wrong_types_below_are_named_too(call: Any, fault: str, single: Callable[..., Model]) -> None:
    with pytest.raises(InvalidArgument, match=fault):
        call(single("llama-bos"))


def test_layers_without_a_number_go_where_all_would(tiny_path: Callable[..., Path]) -> None:
    """On a machine without a GPU that is the CPU: see tests/test_gpu.py for the other kind."""
    with Model(tiny_path("llama"), n_threads=1) as auto, Model(tiny_path("llama"), -1, n_threads=1) as every:
        assert auto.devices == every.devices
