"""Tokenizers of real models, from the vocabularies of llama.cpp's own tests, and what can be done without weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from hypothesis import given
from hypothesis import strategies as st
from isolated import run_isolated
from llama_files import llama_files
from test_split_files import copy_metadata
from test_trial import write_mutant

from hogwild_local import Hogwild, Model, Sampler, SamplingParams, SharedCache
from hogwild_local.cli.baseline import LlamaBaseline
from hogwild_local.errors import InvalidArgument, ModelError
from hogwild_local.prompts.chat_template import ChatTemplate
from hogwild_local.prompts.prompt import inner_tokens
from hogwild_local.workers.text import Utf8Stream

Paths = Callable[..., Path]


def cases(path: Path) -> list[tuple[str, list[int]]]:
    """Texts and their tokens, as llama.cpp's test-tokenizer-0 reads them. What stands after the last separator is a
    text only if it is not empty."""
    texts = Path(f"{path}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    if not texts[-1]:
        texts.pop()
    tokens = [[int(token) for token in line.split()] for line in Path(f"{path}.out").read_text().splitlines()]
    return list(zip(texts, tokens, strict=True))


ALL = llama_files("ggml-vocab-*.gguf")
TESTED = [param for param in ALL if not param.values[0] or Path(f"{param.values[0]}.inp").exists()]
DECODERS = [param for param in ALL if "bert" not in param.id]  # those drop case, accents and spaces


# -- real vocabularies --


@pytest.mark.parametrize("path", ALL, scope="module")
def test_a_vocabulary_without_tensors_loads(path: Path, vocabulary: Callable[[Path], Model]) -> None:
    model = vocabulary(path)
    assert model.n_vocab > 30_000
    with pytest.raises(InvalidArgument, match="vocab_only"):
        SharedCache(model, n_ctx=32)
    for token in (0, model.n_vocab // 2, model.n_vocab - 1):
        assert isinstance(model.token_bytes(token, special=True), bytes)


@pytest.mark.parametrize("path", TESTED, scope="module")
def test_text_becomes_the_tokens_that_llama_cpp_says(path: Path, vocabulary: Callable[[Path], Model]) -> None:
    for text, tokens in cases(path):
        assert vocabulary(path).tokenize(text, add_special=False) == tokens, repr(text)


@pytest.mark.parametrize("path", TESTED, scope="module")
def test_tokens_become_the_text_again(path: Path, vocabulary: Callable[[Path], Model]) -> None:
    model = vocabulary(path)
    unknown = int(model.metadata.get("tokenizer.ggml.unknown_token_id", -1))
    for text, tokens in cases(path):
        written = model.detokenize(tokens)
        if model.metadata["tokenizer.ggml.model"] == "bert":  # it drops case, accents and spaces
            assert unknown in tokens or model.tokenize(written, add_special=False) == tokens
        else:  # some models ask for no space before a question mark
            assert written in (text, text.replace(" ?", "?"))


@pytest.mark.parametrize("path", [param for param in TESTED if param in DECODERS], scope="module")
def test_streamed_tokens_are_the_very_text(path: Path, vocabulary: Callable[[Path], Model]) -> None:
    model = vocabulary(path)
    kind = model.metadata["tokenizer.ggml.model"]
    for text, tokens in cases(path):
        stream = Utf8Stream()
        written = "".join(stream.feed(model.token_bytes(token)) for token in tokens) + stream.flush()
        assert written == (" " + text if text and kind == "llama" else text)  # SentencePiece puts a space in front


@pytest.mark.parametrize("path", DECODERS, scope="module")
def test_a_text_inside_another_one_is_the_very_text(path: Path, vocabulary: Callable[[Path], Model]) -> None:
    model = vocabulary(path)
    for text in ("**Bob [2]:**", "\n\n### Own", " (...)\n\n### By me", "A", " A", "\n", "größer"):
        assert b"".join(map(model.token_bytes, inner_tokens(model, text))).decode() == text


@pytest.mark.parametrize("path", DECODERS, scope="module")
def test_a_prompt_is_one_begin_of_sequence_and_its_own_text(path: Path, vocabulary: Callable[[Path], Model]) -> None:
    model = vocabulary(path)
    chat = ChatTemplate(model)
    prompt = chat.render("RULES", [{"role": "user", "content": "Which primes?"}], thinking=True)
    text, tokens = prompt.text, prompt.tokens(model)
    written = b"".join(model.token_bytes(token, special=True) for token in tokens).decode()
    # SentencePiece: no spaces around control tokens, one in front.
    if model.metadata["tokenizer.ggml.model"] == "llama":
        text, written = ("".join(each.split()) for each in (text, written))
    assert written.removeprefix(chat.bos) == text.removeprefix(chat.bos)
    assert model.bos not in tokens[1:]


# -- without weights --


def test_a_model_without_its_weights_has_tokens_metadata_and_template(tiny_path: Paths) -> None:
    path = tiny_path("llama-bos")
    with Model(path, n_threads=1) as whole, Model(path, n_threads=1, vocab_only=True) as model:
        for name in ("n_vocab", "metadata", "chat_template", "bos", "eos"):
            assert getattr(model, name) == getattr(whole, name)
        tokens = model.tokenize("Once upon a time")
        assert tokens == whole.tokenize("Once upon a time")
        assert [model.token_bytes(token) for token in tokens] == [whole.token_bytes(token) for token in tokens]
        assert (whole.n_ctx_train > 0, model.n_ctx_train) == (True, 0)
        sampler = Sampler(model, SamplingParams(temperature=0, grammar='root ::= "a"'))
        assert model.token_bytes(sampler.sample(np.zeros(model.n_vocab, dtype=np.float32))) == b"a"


def test_a_model_without_its_weights_is_not_run(tiny_path: Paths) -> None:
    with Model(tiny_path("llama-bos"), n_threads=1, vocab_only=True) as model:
        for make in (SharedCache, Hogwild):
            with pytest.raises(InvalidArgument, match="vocab_only: load it without"):
                make(model, n_ctx=64)
        with pytest.raises(InvalidArgument, match="vocab_only: load it without"):
            LlamaBaseline(model, 64, 1)
        assert model.tokenize("a")
    with pytest.raises(InvalidArgument, match="vocab_only"):
        Model(tiny_path("llama-bos"), vocab_only=True, lora=[tiny_path("llama-bos")])


NO_VOCABULARY = """
from hogwild_local import Model, SharedCache, errors
try:
    Model(sys.argv[1], vocab_only=True)
except errors.ModelError as error:
    print(error)
with Model(sys.argv[1], n_threads=1) as model, SharedCache(model, n_ctx=32) as cache:
    try:
        model.tokenize("Hello")
    except errors.InvalidArgument as error:
        print(error)
    print(model.detokenize([1]) == "", model.token_bytes(1) == b"", model.is_eog(1), model._native.is_control(1))
    print(cache.decode([([cache.block()], [1])]).shape == (1, model.n_vocab))
"""


def test_a_model_without_a_vocabulary_runs_but_has_no_text(tiny_path: Paths, tmp_path: Path) -> None:
    reader = GGUFReader(tiny_path("llama-bos"))
    writer = GGUFWriter(tmp_path / "none.gguf", reader.fields["general.architecture"].contents())
    n_vocab = len(reader.fields["tokenizer.ggml.tokens"].data)
    for name in [name for name in reader.fields if name.startswith("tokenizer.")]:
        del reader.fields[name]
    copy_metadata(reader, writer)
    writer.add_tokenizer_model("no_vocab")
    if "llama.vocab_size" not in reader.fields:
        writer.add_vocab_size(n_vocab)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    done = run_isolated(NO_VOCABULARY, tmp_path / "none.gguf")
    refused, text, *rest = done.stdout.splitlines() or [done.stderr]
    assert refused.endswith("none.gguf' has no vocabulary")
    assert text.endswith("or there is no vocabulary")
    assert (rest, done.returncode) == (["True True False False", "True"], 0), done.stderr


# -- RWKV World's: no merges, the longest token that fits --


@given(text=st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "<s>" not in text))
def test_any_text_round_trips_in_a_vocabulary_without_merges(single: Callable[[str], Model], text: str) -> None:
    model = single("rwkv6")
    for special in (False, True):
        assert model.detokenize(model.tokenize(text, parse_special=special)) == text


def test_a_vocabulary_that_would_hold_its_tokenizer_up_for_ever_is_refused(tiny_path: Paths, tmp_path: Path) -> None:
    def change(values: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        tokens = values["tokenizer.ggml.tokens"]
        tokens[tokens.index("W")] = "Will"  # and so no text can end in W

    path = write_mutant(tiny_path("rwkv6"), tmp_path / "w.gguf", change)
    with pytest.raises(ModelError, match="no tokens for 1 of the 256 bytes"):
        Model(path)


def test_a_file_without_tensors_is_no_model_that_could_run(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "empty.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    for vocab_only in (False, True):
        with pytest.raises(ModelError, match=r"empty\.gguf"):
            Model(tmp_path / "empty.gguf", vocab_only=vocab_only)
