"""Short conversations in the ways of talking of real models: what the two workers and the reply of a turn read and
write, by the model's own template, with a vocabulary of its control tokens.

`python tests/talking.py` writes them anew to tests/reference/talking; whoever does that reads them against template and
parser of llama.cpp.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fakes import TINY_STYLE, FakeEngine, FakeModel
from llama_files import MODELS

from hogwild_local import Hogwild
from hogwild_local import events as ev
from hogwild_local.prompts.chat_template import ChatTemplate
from hogwild_local.prompts.tables import Reply
from hogwild_local.workers.samplers import closing_of, forbidden_tokens

GOLDEN = Path(__file__).parent / "reference" / "talking"
STYLE = replace(
    TINY_STYLE,
    reply=Reply("{{ closing or '\\n\\nReply:\\n' }}"),
    step=replace(TINY_STYLE.step, forbidden=("<think>", "</think>")),
)
DAY = "2026-07-31"
THOUGHTS = "Modulo 4."
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Speak Latin."},
    {"role": "user", "content": "Which primes?"},
    {"role": "assistant", "content": "Of 4n + 1.", "reasoning_content": THOUGHTS},
    {"role": "user", "content": "Is 2?"},
]


@dataclass(frozen=True)
class Talker:
    """template: its file in llama.cpp's sources. Tokens of its vocabulary: controls; shown: those that llama.cpp takes
    for a user's; ends: those of both that llama.cpp takes for the end of a text. says: how its model ends a reply."""

    template: str
    controls: str
    shown: str = ""
    ends: str = ""
    says: str = ""

    @property
    def path(self) -> Path:
        return MODELS / "templates" / f"{self.template}.jinja"

    def model(self) -> FakeModel:
        own = [*self.controls.split(), *self.shown.split()]
        text = self.path.read_text(encoding="utf-8")
        return FakeModel(text, own=own, shown=self.shown.split(), ends=self.ends.split())


IM = "<|im_start|> <|im_end|>"
DEEPSEEK = "<|User|> <|Assistant|> <|end▁of▁sentence|>".replace("|", "\uff5c")  # wide ones
KIMI = "<|im_system|> <|im_user|> <|im_assistant|> <|im_middle|> <|im_end|>"
GLM = "[gMASK] <sop> <|system|> <|user|> <|assistant|> <|observation|>"
GRANITE = "<|start_of_role|> <|end_of_role|> <|end_of_text|>"
MISTRAL = "[SYSTEM_PROMPT] [/SYSTEM_PROMPT] [INST] [/INST]"

TALKERS = {
    "gpt-oss": Talker(
        "openai-gpt-oss-120b",
        "<|return|> <|call|>",
        "<|start|> <|end|> <|message|> <|channel|> <|constrain|>",
        ends="<|return|> <|call|>",
        says="<|return|>",
    ),
    "qwen3": Talker("Qwen-Qwen3-0.6B", IM, ends="<|im_end|>", says="<|im_end|>"),
    "qwen3.5": Talker("Qwen3.5-4B", IM, ends="<|im_end|>", says="<|im_end|>"),
    "gemma4": Talker(
        "google-gemma-4-31B-it",
        "<|turn> <turn|> <|think|>",
        "<|channel> <channel|>",
        ends="<turn|>",
        says="<turn|>",
    ),
    "lfm2": Talker("LFM2-8B-A1B", IM, ends="<|im_end|>", says="<|im_end|>"),
    "lfm2.5": Talker("LFM2.5-8B-A1B", IM, ends="<|im_end|>", says="<|im_end|>"),
    "granite4": Talker("ibm-granite-granite-4.0", GRANITE, ends="<|end_of_text|>", says="<|end_of_text|>"),
    "glm4.6": Talker("GLM-4.6", GLM, says="<|user|>"),
    "glm4.7": Talker("GLM-4.7-Flash", GLM, says="<|user|>"),
    "deepseek-r1": Talker("deepseek-ai-DeepSeek-R1-Distill-Llama-8B", DEEPSEEK, says=DEEPSEEK.split()[-1]),
    "deepseek-v3.1": Talker("deepseek-ai-DeepSeek-V3.1", DEEPSEEK, says=DEEPSEEK.split()[-1]),
    "deepseek-v3.2": Talker("deepseek-ai-DeepSeek-V3.2", DEEPSEEK, says=DEEPSEEK.split()[-1]),
    "deepseek-v4": Talker("deepseek-ai-DeepSeek-V4", DEEPSEEK, says=DEEPSEEK.split()[-1]),
    "kimi-k2": Talker("Kimi-K2-Instruct", KIMI, ends="<|im_end|>", says="<|im_end|>"),
    "kimi-k2-thinking": Talker("Kimi-K2-Thinking", KIMI, ends="<|im_end|>", says="<|im_end|>"),
    "kimi-k3": Talker("Kimi-K3", "<|open|> <|close|> <|sep|> <|end_of_msg|>", says="<|close|>"),
    "mistral-small": Talker("Mistral-Small-3.2-24B-Instruct-2506", MISTRAL, says="<eos>"),
    "ministral-thinking": Talker(
        "mistralai-Ministral-3-14B-Reasoning-2512", f"{MISTRAL} [THINK] [/THINK]", says="<eos>"
    ),
    "cohere2": Talker(
        "Cohere2MoE",
        "<|START_OF_TURN_TOKEN|> <|END_OF_TURN_TOKEN|> <|SYSTEM_TOKEN|> <|USER_TOKEN|> <|CHATBOT_TOKEN|> "
        "<|START_TEXT|> <|END_TEXT|> <|START_THINKING|> <|END_THINKING|>",
        ends="<|END_OF_TURN_TOKEN|>",
        says="<|END_TEXT|>",
    ),
    "solar": Talker(
        "upstage-Solar-Open-100B",
        "<|begin|> <|think|> <|content|> <|flush|> <|calls|>",
        "<|end|>",
        ends="<|flush|> <|calls|>",
        says="<|end|>",
    ),
    "muse": Talker("muse-glimmer", "<|start|> <|message|> <|eom|> <|eot|>", says="<|eot|>"),
}


def conversation(talker: Talker) -> dict[str, Any]:
    """The last turn of a talk, as its voices read it. Tokens that a template alone may write stand between « and »."""
    model = talker.model()
    chat = ChatTemplate(model)
    names = model.special
    vote = closing_of(model, chat.think_tags, "first").token if chat.think_tags else None
    alice = [*_tokens(model, "2 = 1 + 1.\n\nSo it"), *([] if vote is None else [vote])]
    fake = FakeEngine(
        alice, "1 is a square, ", _tokens(model, "Est." + talker.says) + _tokens(model, "..."), model=model
    )
    options: dict[str, Any] = {"max_passes": 24, "seed": 1, "date": DAY}
    with Hogwild("m.gguf", prompts=STYLE, engine=fake.engine) as hw:
        events = list(hw.stream(_talk(False), **options, ends="answer" if vote is None else "first"))
        assert hw.n_free == hw.n_ctx
    assert fake.cache is not None
    read = next(feed for feeds in fake.cache.passes for feed in feeds if feed.names[-1] == "reply")
    (reply,) = (event for event in events if isinstance(event, ev.ReplyEnded))
    ended = events[-1]
    assert isinstance(ended, ev.RunEnded)
    return {
        "template": talker.path.name,
        "dialect": chat.dialect.name,
        "prompt, and what the workers wrote": _lines("".join(read.before), model),
        "why their work ended": ended.reason,
        "what opens the reply": _lines(model.text(read.tokens), model),
        "the reply": [reply.text, reply.reason],
        "token of the vote": names.get(-1 if vote is None else vote),
        "tokens no worker may choose": sorted(
            names[token] for token in forbidden_tokens(model, chat.think_tags, STYLE.step.forbidden)
        ),
        "tokens that end a turn": sorted(name for token, name in names.items() if _ends(model, chat, token)),
        "prompt from the question on, without thinking": _rest(chat, model, False, False),
        "prompt from the first question on, thoughts kept": _rest(chat, model, True, True),
    }


def _rest(chat: ChatTemplate, model: FakeModel, thinking: bool, kept: bool) -> list[str]:
    prompt = chat.render("R", _talk(kept), thinking).text
    question = TALK[1 if kept else 3]["content"]
    return _lines(question + prompt.rpartition(question)[2], model)


def _talk(kept: bool) -> list[dict[str, Any]]:
    """The messages, with or without the thoughts of the earlier turn."""
    return [{key: value for key, value in message.items() if kept or key != "reasoning_content"} for message in TALK]


def _ends(model: FakeModel, chat: ChatTemplate, token: int) -> bool:
    return model.is_eog(token) or token in chat.turn_ends


def _tokens(model: FakeModel, text: str) -> list[int]:
    return model.tokenize(text, add_special=False, parse_special=True)


def _lines(text: str, model: FakeModel) -> list[str]:
    special = model.special
    pieces = (
        f"«{special[token]}»".encode() if token in special else model.token_bytes(token)
        for token in _tokens(model, text)
    )
    return b"".join(pieces).decode().splitlines(keepends=True)


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for name, talker in TALKERS.items():
        text = json.dumps(conversation(talker), ensure_ascii=False, indent=1)
        (GOLDEN / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
