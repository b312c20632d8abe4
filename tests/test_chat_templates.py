"""Chat templates of real models, those of llama.cpp's own tests: all are rendered, and as llama-cpp-python does it,
up to the tags that begin or end the thoughts."""

from __future__ import annotations

import re
from datetime import date as Date
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeModel
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
from llama_files import llama_files

from hogwild_local.prompts.chat_template import ChatTemplate
from hogwild_local.prompts.style import PromptStyle, Wording

TEMPLATES = llama_files("templates/*.jinja")
SYSTEM = {"role": "system", "content": "Answer in Latin, please."}
QUESTION = {"role": "user", "content": "Which primes are sums of two squares?"}
TALK = [SYSTEM, QUESTION, {"role": "assistant", "content": "Those of 4n + 1."}, {"role": "user", "content": "Is 2?"}]

# By the texts of the templates: what opens and closes thoughts where it is not <think>, and who has no thoughts.
TAGS = {
    "Apertus-8B-Instruct": ("<|inner_prefix|>", "<|inner_suffix|>"),
    "Apriel-1.6-15b-Thinker-fixed": ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    "ByteDance-Seed-OSS": ("<seed:think>", "</seed:think>"),
    "Cohere2MoE": ("<|START_THINKING|>", "<|END_THINKING|>"),
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": ("<|START_THINKING|>", "<|END_THINKING|>"),
    "Kimi-K3": ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    "MiniMax-M3": ("<mm:think>", "</mm:think>"),
    "google-gemma-4-31B-it": ("<|channel>thought", "<channel|>"),
    "google-gemma-4-31B-it-interleaved": ("<|channel>thought", "<channel|>"),
    "mistralai-Ministral-3-14B-Reasoning-2512": ("[THINK]", "[/THINK]"),
    "muse-glimmer": ("to=self<|message|>", "<|eom|>"),
    "openai-gpt-oss-120b": ("<|channel|>analysis<|message|>", "<|end|>"),
    "tencent-Hy3": ("<think:opensource>", "</think:opensource>"),
    "upstage-Solar-Open-100B": ("<|think|>", "<|end|>"),
}
NO_THOUGHTS = {
    "CohereForAI-c4ai-command-r-plus-tool_use",
    "GigaChat3-10B-A1.8B",
    "GigaChat3.1-10B-A1.8B",
    "Kimi-K2-Instruct",
    "LFM2-8B-A1B",
    "LFM2.5-Instruct",
    "MiMo-VL",
    "MiniMax-M1",
    "Mistral-Small-3.2-24B-Instruct-2506",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
    "Qwen-Qwen2.5-7B-Instruct",
    "Qwen3-Coder",
    "fireworks-ai-llama-3-firefunction-v2",
    "google-gemma-2-2b-it",
    "ibm-granite-granite-4.0",
    "ibm-granite-granite-4.1",
    "meetkai-functionary-medium-v3.1",
    "meetkai-functionary-medium-v3.2",
    "meta-llama-Llama-3.1-8B-Instruct",
    "meta-llama-Llama-3.2-3B-Instruct",
    "meta-llama-Llama-3.3-70B-Instruct",
    "microsoft-Phi-3.5-mini-instruct",
    "mistralai-Mistral-Nemo-Instruct-2407",
    "moonshotai-Kimi-K2",
    "unsloth-Apriel-1.5",
    "unsloth-mistral-Devstral-Small-2507",
}
# What they are told beyond enable_thinking, thinking and reasoning, for thinking and for none.
MORE = {
    "MiniMax-M3": ({"thinking_mode": "enabled"}, {"thinking_mode": "disabled"}),
    "tencent-Hy3": ({"reasoning_effort": "high"}, {"reasoning_effort": "no_think"}),
    "upstage-Solar-Open-100B": ({"reasoning_effort": "high"}, {"reasoning_effort": "minimal"}),
    "ByteDance-Seed-OSS": ({}, {"thinking_budget": 0}),
}
# What begins an answer that cannot begin with its text.
ANSWERS = {
    "Cohere2MoE": "<|START_TEXT|>",
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": "<|START_RESPONSE|>",
    "muse-glimmer": " to=user<|message|>",
    "openai-gpt-oss-120b": "<|channel|>final<|message|>",
    "upstage-Solar-Open-100B": "<|content|>",
}


def tags_of(name: str) -> tuple[str, str] | None:
    return None if name in NO_THOUGHTS else TAGS.get(name, ("<think>", "</think>"))


def by_llama_cpp_python(path: Path, messages: list[dict[str, Any]], thinking: bool, **more: Any) -> str:
    switches: dict[str, Any] = dict.fromkeys(("enable_thinking", "thinking", "reasoning"), thinking)
    today = Date.today()
    switches |= {"date_string": today.strftime("%d %b %Y"), "datetime": today.strftime("%b %d %Y"), **more}
    switches |= MORE.get(path.stem, ({}, {}))[not thinking]
    # Templates for tools want to be given some.
    switches |= {"tools": []} if path.stem.endswith("-tool_use") else {}
    switches |= {"functions": ""} if "firefunction" in path.stem else {}
    opens = messages[-1]["role"] != "assistant"
    formatter = Jinja2ChatFormatter(path.read_text(encoding="utf-8"), "<eos>", "<bos>", add_generation_prompt=opens)
    system, user, *rest = messages
    if "System role not supported" in formatter.template:
        messages = [{**user, "content": f"{system['content']}\n\n{user['content']}"}, *rest]
    return formatter(messages=messages, **switches).prompt


@pytest.mark.parametrize("thinking", [True, False], ids=["thinking", "not"])
@pytest.mark.parametrize("path", TEMPLATES)
def test_a_real_template_holds_everything_once_and_ends_as_asked(path: Path, thinking: bool) -> None:
    wording = Wording(PromptStyle.default(), ["Alice", "Bob"], "combined", thinking)
    chat = ChatTemplate(FakeModel(path.read_text(encoding="utf-8")))
    tags = tags_of(path.stem)
    for messages in ([QUESTION], TALK):
        text = chat.render(wording.rules(), messages, thinking).text
        for content in (wording.rules(), *(message["content"] for message in messages)):
            assert text.count(content) == 1
        turn = text.partition(messages[-1]["content"])[2]
        if tags is None:
            continue
        opening, closing = tags
        if thinking:
            assert turn.rstrip().endswith(opening)
            assert turn.count(opening) == 1
        else:
            assert turn.rfind(opening) <= turn.rfind(closing)


@pytest.mark.parametrize("thinking", [True, False], ids=["thinking", "not"])
@pytest.mark.parametrize("path", TEMPLATES)
def test_a_real_template_is_rendered_as_by_llama_cpp_python(path: Path, thinking: bool) -> None:
    chat = ChatTemplate(FakeModel(path.read_text(encoding="utf-8")))
    for system, messages in (("RULES", [QUESTION]), (f"RULES\n\n{SYSTEM['content']}", TALK[1:])):
        theirs = by_llama_cpp_python(path, [{"role": "system", "content": system}, *messages], thinking)
        ours = chat.render("RULES", TALK if len(messages) > 1 else messages, thinking).text
        assert ours.startswith(theirs)
        added = ours[len(theirs) :].strip()
        tags = tags_of(path.stem)
        if tags is None or any(theirs.rstrip().endswith(tag) for tag in tags):
            opened = tags and not thinking and theirs.rstrip().endswith(tags[0])
            assert added == (tags[1] if opened else "" if thinking else ANSWERS.get(path.stem, ""))
        else:
            assert added == (tags[0] if thinking else ANSWERS.get(path.stem, "").strip())


@pytest.mark.parametrize("path", TEMPLATES)
def test_the_tags_of_a_real_template_are_found(path: Path) -> None:
    tags = ChatTemplate(FakeModel(path.read_text(encoding="utf-8"))).think_tags
    assert (tags and (tags.open.strip(), tags.close.strip())) == tags_of(path.stem)


THOUGHTS, REPLY = "Mod 4 will do.", "Those of 4n + 1, and 2."
FORMS: tuple[dict[str, Any], ...] = (
    *({"content": REPLY, field: THOUGHTS} for field in ("reasoning_content", "reasoning", "thinking")),
    {"content": [{"type": "thinking", "thinking": THOUGHTS}, {"type": "text", "text": REPLY}]},
)
# Templates that open thoughts in one way and write those of earlier turns in another one: of what opens them, the white
# space differs, or they leave it out.
OPENED_OTHERWISE = {
    "Apriel-1.6-15b-Thinker-fixed": "",
    "poolside-Laguna-XS-2.1": "<think>\n",
    "poolside-Laguna-XS.2": "<think>\n",
}
# Of whose templates no thoughts can be had, or only with tools: what a turn of theirs is, read in them.
SHOWS_NONE = {
    "Apertus-8B-Instruct": "<|inner_prefix|>{}<|inner_suffix|>{}",
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": "<|START_THINKING|>{}<|END_THINKING|><|START_RESPONSE|>{}",
    "HuggingFaceTB-SmolLM3-3B": "<think>\n{}\n</think>\n\n{}",
    "Kimi-K2-Thinking": "<think>{}</think>{}",
    "NVIDIA-Nemotron-Nano-v2": "<think>\n{}\n</think>\n\n{}",
    "Qwen-QwQ-32B": "<think>\n{}\n</think>\n\n{}",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": "<think>\n{}\n</think>\n\n{}",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": "<think>\n{}\n</think>\n\n{}",
    "deepseek-ai-DeepSeek-V3.1": "<think>{}</think>{}",
    "google-gemma-4-31B-it": "<|channel>thought\n{}\n<channel|>{}",
    "google-gemma-4-31B-it-interleaved": "<|channel>thought\n{}\n<channel|>{}",
    "ibm-granite-granite-3.3-2B-Instruct": "<think>\n{}\n</think>\n\n{}",
    "llama-cpp-deepseek-r1": "<think>\n{}\n</think>\n\n{}",
    "llama-cpp-rwkv-world": "<think>{}\n</think>\n\n{}",
}


@pytest.mark.parametrize("path", TEMPLATES)
def test_a_turn_is_written_as_the_template_itself_writes_one(path: Path) -> None:
    """Prompt, thoughts, their end, and the reply."""
    chat = ChatTemplate(FakeModel(path.read_text(encoding="utf-8")))
    prompt = chat.render("RULES", [QUESTION], thinking=True).text
    if chat.think_tags is None:
        assert path.stem in NO_THOUGHTS
        return
    ours = prompt + THOUGHTS + chat.think_tags.closing + REPLY
    turns = []
    for form in FORMS:
        try:
            turn = by_llama_cpp_python(
                path, [{"role": "system", "content": "RULES"}, QUESTION, {"role": "assistant", **form}], thinking=True
            )
        except Exception:  # it has no such field
            continue
        turns += [turn] if THOUGHTS in turn and not re.search("['\"]type", turn) else []
    assert bool(turns) is (path.stem not in SHOWS_NONE)
    if not turns:
        assert ours.endswith(SHOWS_NONE[path.stem].format(THOUGHTS, REPLY))
    for turn in turns:
        wanted = ours
        if path.stem in OPENED_OTHERWISE:
            head = prompt[: prompt.rindex(chat.think_tags.open.strip())]
            wanted = head + OPENED_OTHERWISE[path.stem] + THOUGHTS + chat.think_tags.closing + REPLY
        assert turn.startswith(wanted)
