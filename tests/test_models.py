"""The tiny models are what their table says, the same everywhere, and llama.cpp reads them as meant."""

from __future__ import annotations

import ctypes
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jinja2
import llama_cpp as ll
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, quants
from hypothesis import given
from hypothesis import strategies as st

import models
from models.__main__ import main
from models.transformer import write_transformer
from models.vocabulary import CHAT_TEMPLATE, WORDS, used_tokens
from models.weights import FILE_TYPES, seeded

README = Path(models.__file__).with_name("README.md")
PROMPT = b"Bob, let us see?\n\n"
N_USED = used_tokens()


@ll.llama_log_callback
def silent(level: int, text: bytes, data: Any) -> None:
    pass


ll.llama_log_set(silent, ctypes.c_void_p(0))


class Model:
    """A model in llama.cpp, with a new cache for each call, in f32."""

    def __init__(self, path: Path) -> None:
        params = ll.llama_model_default_params()
        # Weights stay as they are in the file. Repacked for AMX they crash in a llama.cpp that a GCC before
        # 12.4 compiled: its _tile_loadconfig reads memory the compiler has not written (GCC bug 114098).
        params.use_extra_bufts = False
        self.handle = ll.llama_model_load_from_file(str(path).encode(), params)
        assert self.handle, f"llama.cpp cannot load {path}"
        self.vocab = ll.llama_model_get_vocab(self.handle)
        self.n_vocab = ll.llama_vocab_n_tokens(self.vocab)

    def tokens(self, text: bytes, *, special: bool = False) -> list[int]:
        room = (ll.llama_token * (3 * len(text) + 1))()  # a byte that is not UTF-8 becomes three
        count = ll.llama_tokenize(self.vocab, text, len(text), room, len(room), False, special)
        assert count >= 0
        return list(room[:count])

    def text(self, tokens: list[int]) -> bytes:
        array = (ll.llama_token * len(tokens))(*tokens)
        room = ctypes.create_string_buffer(16 * len(tokens) + 1)
        count = ll.llama_detokenize(self.vocab, array, len(tokens), room, len(room), False, True)
        assert count >= 0
        return room.raw[:count]

    @contextmanager
    def context(self) -> Iterator[Any]:
        params = ll.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_threads, params.n_threads_batch = 512, 512, 1, 1
        params.type_k = params.type_v = int(GGMLQuantizationType.F32)
        context = ll.llama_init_from_model(self.handle, params)
        assert context
        try:
            yield context
        finally:
            ll.llama_free(context)

    def step(self, context: Any, tokens: list[int]) -> np.ndarray:
        array = (ll.llama_token * len(tokens))(*tokens)
        assert ll.llama_decode(context, ll.llama_batch_get_one(array, len(tokens))) == 0
        return np.ctypeslib.as_array(ll.llama_get_logits_ith(context, -1), (self.n_vocab,)).copy()

    def logits(self, tokens: list[int]) -> np.ndarray:
        with self.context() as context:
            return self.step(context, tokens)

    def greedy(self, tokens: list[int], count: int = 16) -> tuple[list[int], float]:
        """The tokens, and by how much the closest decision was won."""
        out: list[int] = []
        margin = np.inf
        with self.context() as context:
            for _ in range(count):
                logits = self.step(context, tokens)
                second, first = np.sort(logits)[-2:]
                margin = min(margin, float(first - second))
                tokens = [int(logits.argmax())]
                out += tokens
        return out, margin


class Models:
    """Writes and loads each model once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.loaded: dict[Path, Model] = {}

    def __call__(self, name: str, file_type: str = "f32") -> Model:
        path = self.directory / f"{name}-{file_type}.gguf"
        if not path.exists():
            models.write_tiny(path, name, file_type=file_type)
        return self.open(path)

    def open(self, path: Path) -> Model:
        if path not in self.loaded:
            self.loaded[path] = Model(path)
        return self.loaded[path]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    models = Models(tmp_path_factory.mktemp("models"))
    yield models
    for model in models.loaded.values():
        ll.llama_model_free(model.handle)


def any_tokens(count: int) -> list[int]:
    return [id * 31 % N_USED for id in range(count)]


def documented() -> dict[str, tuple[str, list[int]]]:
    rows = re.findall(r"^\| `([\w-]+)` \| `(\w{64})` \| ([\d ]+) \|$", README.read_text(), re.MULTILINE)
    return {name: (digest, [int(id) for id in tokens.split()]) for name, digest, tokens in rows}


@pytest.mark.parametrize("name", [*models.TINY, *models.HYBRIDS])
def test_a_file_is_the_documented_one_and_speaks_the_documented_tokens(name: str, load: Models) -> None:
    model = load(name)
    digest = hashlib.sha256((load.directory / f"{name}-f32.gguf").read_bytes()).hexdigest()
    tokens, margin = model.greedy(model.tokens(PROMPT))
    assert documented().get(name) == (digest, tokens)
    assert margin > 0.02, "too close a decision: another machine may decide otherwise"


@pytest.mark.parametrize("name", [*models.TINY, *models.HYBRIDS, *models.FOREIGN])
def test_a_seed_is_a_file(name: str, tmp_path: Path) -> None:
    write: Any = models.write_foreign if name in models.FOREIGN else models.write_tiny

    def written(seed: int) -> bytes:
        write(tmp_path / "model", name, seed=seed)
        return (tmp_path / "model").read_bytes()

    assert written(0) == written(0) != written(1)


@pytest.mark.parametrize("file_type", FILE_TYPES)
@pytest.mark.parametrize("name", models.TINY)
def test_every_model_decodes_in_every_type(name: str, file_type: str, load: Models) -> None:
    logits = load(name, file_type).logits(any_tokens(100))
    assert np.isfinite(logits).all()
    assert 1 < logits[:N_USED].std() < 3
    assert (logits[N_USED:] == 0).all()  # unused tokens


@pytest.mark.parametrize("name", models.TINY)
def test_the_shape_is_the_declared_one(name: str, load: Models) -> None:
    shape, model = models.TINY[name], load(name)
    sizes = (ll.llama_model_n_layer, ll.llama_model_n_embd, ll.llama_model_n_head, ll.llama_model_n_head_kv)
    declared = (shape.layers, shape.width, shape.heads, shape.kv_heads)
    assert tuple(size(model.handle) for size in sizes) == declared
    reader = GGUFReader(load.directory / f"{name}-f32.gguf")
    tensors = {tensor.name: tuple(int(size) for size in tensor.shape) for tensor in reader.tensors}
    assert tensors["blk.0.attn_k.weight"] == (shape.width, shape.kv_heads * shape.head_size)
    assert tensors["blk.0.ffn_up.weight"] == (shape.width, shape.feed_forward)
    assert ("output.weight" in tensors) is not shape.tied
    assert ll.llama_vocab_get_add_bos(model.vocab) is shape.bos


@pytest.mark.parametrize("name", models.TINY)
def test_a_token_far_back_matters(name: str, load: Models) -> None:
    tokens = any_tokens(200)
    before = load(name).logits(tokens)
    for at in (0, 3, 50, 100):
        changed = [*tokens[:at], (tokens[at] + 77) % N_USED, *tokens[at + 1 :]]
        assert np.std(load(name).logits(changed) - before) > 0.05, at


@pytest.mark.parametrize("name", [name for name, shape in models.TINY.items() if shape.rope_scaling])
def test_a_scaled_rope_is_not_a_plain_one(name: str, load: Models, tmp_path: Path) -> None:
    write_transformer(tmp_path / "plain", name, replace(models.TINY[name], rope_scaling=None), "f32", seeded(0))
    tokens = any_tokens(50)
    difference = load(name).logits(tokens) - load.open(tmp_path / "plain").logits(tokens)
    assert np.std(difference) > 0.1


@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_text_round_trips(load: Models, text: str) -> None:
    model = load("qwen3")
    for special in (False, True):
        assert model.text(model.tokens(text.encode(), special=special)) == text.encode()


@given(data=st.binary())
def test_any_bytes_are_tokens(load: Models, data: bytes) -> None:
    assert load("qwen3").text(list(data)) == data


@pytest.mark.parametrize("word", [*WORDS, "<think>", "</think>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"])
def test_a_word_is_one_token(word: str, load: Models) -> None:
    (token,) = load("qwen3").tokens(word.encode(), special=True)
    assert load("qwen3").text([token]) == word.encode()


def test_a_paragraph_ends_in_one_token_wherever_it_stands(load: Models) -> None:
    model = load("llama")
    (end,) = model.tokens(b"\n\n")
    assert model.tokens(b"a\n\nb") == [ord("a"), end, ord("b")]
    assert model.tokens(b"1\n\n\n\n2") == [ord("1"), end, end, ord("2")]


def test_a_turn_ends_with_the_end_of_turn(load: Models) -> None:
    model = load("qwen3")
    assert [ll.llama_vocab_eos(model.vocab)] == model.tokens(b"<|im_end|>", special=True)


@pytest.mark.parametrize("trim", [False, True])
def test_the_chat_template_has_thinking_on_and_off(trim: bool, load: Models) -> None:
    template = ll.llama_model_chat_template(load("qwen3").handle, None).decode()
    assert template == CHAT_TEMPLATE
    chat = jinja2.Environment(trim_blocks=trim, lstrip_blocks=trim).from_string(template)
    thought = "<think>\nmm\n</think>\n\n"
    turns = [("system", "Be brief."), ("user", "Hi "), ("assistant", "Hello"), ("user", "Bye")]
    messages = [{"role": role, "content": thought * (role == "assistant") + text} for role, text in turns]
    said = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
    assert chat.render(messages=messages) == said
    asked = said + "<|im_start|>assistant\n"
    assert chat.render(messages=messages, add_generation_prompt=True) == asked
    assert chat.render(messages=messages, add_generation_prompt=True, enable_thinking=True) == asked
    thoughtless = chat.render(messages=messages, add_generation_prompt=True, enable_thinking=False)
    assert thoughtless == asked + "<think>\n\n</think>\n\n"


@pytest.mark.parametrize("name", models.FOREIGN)
def test_llama_cpp_loads_the_foreign_models(name: str, load: Models) -> None:
    models.write_foreign(load.directory / name, name)
    with load.open(load.directory / name).context() as context:
        assert not ll.llama_get_memory(context)  # an encoder has no memory at all


@pytest.mark.parametrize(("name", "shape"), models.HYBRIDS.items())
def test_a_hybrid_model_has_recurrent_layers_and_mamba_nothing_else(
    name: str, shape: models.Hybrid, load: Models
) -> None:
    handle = load(name).handle
    assert ll.llama_model_is_recurrent(handle) is (shape.every == 0)
    assert ll.llama_model_is_hybrid(handle) is (shape.every > 0)


def test_a_large_model_has_the_spread_it_should(load: Models) -> None:
    shape = models.Shape("qwen3", 2, 64, 4, 2, 32, 96, vocabulary=1000, tied=True)
    for file_type, (kind, _) in FILE_TYPES.items():
        path = load.directory / f"large-{file_type}"
        models.write_large(path, shape, file_type=file_type)
        gate = {tensor.name: tensor for tensor in GGUFReader(path).tensors}["blk.1.ffn_gate.weight"]
        assert np.std(quants.dequantize(gate.data, kind)) == pytest.approx(64**-0.5, rel=0.1)
        logits = load.open(path).logits(any_tokens(50))
        assert 1 < logits[:N_USED].std() < 3
        assert (logits[N_USED:] == 0).all()


def test_a_file_that_was_not_finished_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_text("before")
    fill = Mock(side_effect=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        write_transformer(path, "", models.TINY["llama"], "f32", fill)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["before"]


IMPOSSIBLE = ({"arch": "gpt2"}, {"heads": 5}, {"head_size": 21}, {"layers": 0}, {"width": 100})


@pytest.mark.parametrize("sizes", IMPOSSIBLE)
def test_a_shape_that_cannot_be_is_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        replace(models.TINY["qwen2"], **sizes)


def test_a_command_with_sizes_that_cannot_be_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["large", str(tmp_path / "large.gguf"), "--heads", "5"])
    assert "whole groups" in capsys.readouterr().err


def test_the_commands_write_what_they_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["worksheets", "3", "--seed", "1", "--items", "4"])
    sheets = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [sheet["id"] for sheet in sheets] == ["1-1", "1-2", "1-3"]
    assert all(sheet["problem"].startswith("a=") and len(sheet["answer"]) == 4 * 3 for sheet in sheets)
    main(["tiny", str(tmp_path / "tiny"), "--type", "q4_0"])
    assert len(list((tmp_path / "tiny").iterdir())) == len(models.TINY) + len(models.HYBRIDS) + len(models.FOREIGN)
    sizes = "--layers 1 --width 64 --heads 2 --kv-heads 1 --head-size 32 --feed-forward 64 --vocabulary 400"
    main(["large", str(tmp_path / "large.gguf"), "--arch", "llama", "--no-tied", *sizes.split()])
    names = {tensor.name for tensor in GGUFReader(tmp_path / "large.gguf").tensors}
    assert names & {"output.weight", "blk.1.attn_q.weight"} == {"output.weight"}
