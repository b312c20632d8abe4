"""A byte-level vocabulary: every byte is a token, a few words have one of their own. Any text round-trips."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from gguf import TokenType

if TYPE_CHECKING:
    from gguf import GGUFWriter

N_TOKENS = 384

# Each becomes one token. The ends of paragraphs come first: what follows builds on them.
WORDS = (
    "\n\n", ".\n\n", "!\n\n", "?\n\n", ":\n\n", "```", "...", "  ", "    ",
    "the", " the", " a", " in", " is", " it", " to", " of", " and", " that", " not", " on", " be", " we",
    " so", " I", "ing", "er", "ed", "en", "es", "at", "or", "al", "le", "ou", "ll", "st", "ion", "ent", "you",
    "Wait", "So", "We", "The", "Let", "Yes", "No", "Step", " step", " done",
    " one", " two", " work", " worker", "Alice", "Bob", " answer",
)  # fmt: skip

TURN_START, TURN_END, END_OF_TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CONTROLS = (TURN_START, TURN_END, END_OF_TEXT)
# As in Qwen3's files these are not control tokens: they show in the text.
THINK_TAGS = ("<think>", "</think>")

# Qwen3's template without tools: thoughts of earlier turns are dropped, and no thinking is an empty thought.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- set content = message.content -%}
{%- if message.role == 'assistant' -%}
{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}
{{- '<think>\\n\\n</think>\\n\\n' -}}
{%- endif -%}
{%- endif -%}"""


# RWKV World's template: no marks, and what ends a paragraph ends a turn.
WORLD_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{{- message.role | capitalize + ': ' + message.content | trim + '\\n\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- 'Assistant:' -}}
{%- if enable_thinking is defined and enable_thinking is true -%}
{{- ' <think>' -}}
{%- endif -%}
{%- endif -%}"""


@dataclass(frozen=True)
class Vocabulary:
    tokens: tuple[str, ...]
    types: tuple[TokenType, ...]
    merges: tuple[str, ...]


def letters() -> list[str]:
    """The printable letter GPT-2 writes for each byte: token text in a GGUF file is never raw bytes."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def merge(parts: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding as llama.cpp does it: the earliest merge first, of several the leftmost."""
    while found := [(ranks[pair], at) for at, pair in enumerate(pairwise(parts)) if pair in ranks]:
        _, at = min(found)
        parts = [*parts[:at], parts[at] + parts[at + 1], *parts[at + 2 :]]
    return parts


def learn_merges(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """The merges that make each word one token, given the merges of the words before it."""
    alphabet = letters()
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        spelt = [alphabet[byte] for byte in word.encode()]
        while len(parts := merge(spelt, ranks)) > 1:
            ranks[parts[0], parts[1]] = len(ranks)
    return list(ranks)


@cache
def vocabulary(n_tokens: int = N_TOKENS) -> Vocabulary:
    """Token b is the byte b for b < 256; then the merges, the think tags and controls, and unused tokens."""
    merges = learn_merges(WORDS)
    texts = [*letters(), *(left + right for left, right in merges)]
    types = [TokenType.NORMAL] * len(texts)
    texts += [*THINK_TAGS, *CONTROLS]
    types += [TokenType.USER_DEFINED] * len(THINK_TAGS) + [TokenType.CONTROL] * len(CONTROLS)
    if len(set(texts)) != len(texts):
        raise ValueError("two merges make the same token")
    if n_tokens < len(texts):
        raise ValueError(f"the vocabulary has {len(texts)} tokens, more than {n_tokens}")
    for unused in range(len(texts), n_tokens):
        texts.append(f"<unused_{unused}>")
        types.append(TokenType.UNUSED)
    return Vocabulary(tuple(texts), tuple(types), tuple(f"{left} {right}" for left, right in merges))


def used_tokens() -> int:
    """How many tokens a text can have: those from here on are padding."""
    return sum(kind != TokenType.UNUSED for kind in vocabulary().types)


def add_vocabulary(writer: GGUFWriter, n_tokens: int = N_TOKENS, *, bos: bool = False) -> None:
    words = vocabulary(n_tokens)
    ids = {text: id for id, text in enumerate(words.tokens)}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")  # keeps spaces as they are, and newlines together
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.types)
    writer.add_token_merges(words.merges)
    writer.add_bos_token_id(ids[END_OF_TEXT])
    writer.add_eos_token_id(ids[TURN_END])
    writer.add_eot_token_id(ids[TURN_END])
    writer.add_pad_token_id(ids[END_OF_TEXT])
    writer.add_add_bos_token(bos)
    writer.add_chat_template(CHAT_TEMPLATE)


def world_tokens() -> list[bytes]:
    """RWKV World's kind of vocabulary: no merges, the longest token that fits; its first one is of no bytes."""
    return [b"<s>", *(bytes([byte]) for byte in range(256)), *(word.encode() for word in WORDS)]


def add_world_vocabulary(writer: GGUFWriter, n_tokens: int = N_TOKENS) -> None:
    """As llama.cpp's converter writes it: as Python writes bytes, and with the end of a paragraph as end of a turn."""
    known = world_tokens()
    unused = [f"[PAD{id}]" for id in range(len(known), n_tokens)]
    writer.add_tokenizer_model("rwkv")
    writer.add_token_list([repr(token)[2:-1] for token in known] + unused)
    types = [TokenType.CONTROL] + [TokenType.NORMAL] * (len(known) - 1) + [TokenType.UNUSED] * len(unused)
    writer.add_token_types(types)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_eot_token_id(known.index(b"\n\n"))
    writer.add_chat_template(WORLD_TEMPLATE)
