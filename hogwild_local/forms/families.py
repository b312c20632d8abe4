"""The families of models whose calls of tools are known, and how each writes them. Plain data.

A model writes a call as its chat template shows it earlier ones. So a template's family is the first of these that
reads back a call that the template has written (prompts/tool_template.py); where it writes none, by marks in its text.
The texts are those of llama.cpp's models/templates and common/parsers.
"""
# ruff: noqa: RUF001  bars and lines of DeepSeek's tokens are no ASCII

from __future__ import annotations

from .calls import Family, Form, Tags

_NAMED = ("name", "arguments")
_HEAD, _MIDDLE = '{"name": "', '", "arguments": '
_LISTED: dict[str, tuple[str, str]] = {
    # What stands before and behind a list of objects.
    "Mistral (list)": ("[TOOL_CALLS]", ""),
    "Apriel": ("<tool_calls>", "</tool_calls>"),
    "Nemotron v2": ("<TOOLCALL>", "</TOOLCALL>"),
    "Granite 3": ("<|tool_call|>", ""),
    "Firefunction": ("functools", ""),
}


def _object(before: str, behind: str, name: str = "name", arguments: str = "arguments", lead: str = "") -> Form:
    """A call is an object, which stands between two texts; lead: what it holds before its name."""
    return Form(
        opens=before.strip(),
        head=f'{before}{{{lead}"{name}": "',
        middle=f'", "{arguments}": ',
        tail=f"}}{behind}",
        between="\n",
        keys=(name, arguments),
    )


def _listed(before: str, behind: str, tail: str = "}") -> Form:
    """Calls are a list of objects between two texts."""
    return Form(before.strip(), _HEAD, _MIDDLE, tail, first=f"{before}[", last=f"]{behind}", between=", ", keys=_NAMED)


_QWEN_TAGS = Tags("<parameter=", ">\n", "\n</parameter>\n")
_GLM_TAGS = Tags("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n")
_DSML_TAGS = Tags('<｜DSML｜parameter name="', '" string="{is_text}">', "</｜DSML｜parameter>\n")
_INVOKE_TAGS = Tags('<parameter name="', '">', "</parameter>\n")


def _dsml(block: str) -> Form:
    begin, end = f"<｜DSML｜{block}>", f"</｜DSML｜{block}>"
    head, middle, tail = '<｜DSML｜invoke name="', '">\n', "</｜DSML｜invoke>"
    return Form(begin, head, middle, tail, first=f"{begin}\n", last=f"\n{end}", between="\n", arguments=_DSML_TAGS)


FAMILIES: tuple[Family, ...] = (
    Family(
        "Seed-OSS",
        (
            Form(
                *("<seed:tool_call>", "<seed:tool_call>\n<function=", ">\n", "</function>\n</seed:tool_call>"),
                between="\n",
                arguments=Tags("<parameter=", ">", "</parameter>\n"),
            ),
        ),
    ),
    Family(
        "Qwen3-Coder, Qwen3.5, Nemotron 3, Step 3.5",
        (
            Form(
                *("<tool_call>", "<tool_call>\n<function=", ">\n", "</function>\n</tool_call>"),
                between="\n",
                arguments=_QWEN_TAGS,
            ),
            Form(
                *("<function=", "<function=", ">\n", "</function>"),
                last="\n</tool_call>",
                between="\n",
                arguments=_QWEN_TAGS,
            ),
        ),
    ),
    Family("Hermes, Qwen 2.5 and 3, Granite 4", (_object("<tool_call>\n", "\n</tool_call>"),)),
    Family(
        "GLM 4.5 to 4.7, Ling 3, Laguna",
        (Form("<tool_call>", "<tool_call>", "\n", "</tool_call>", between="\n", arguments=_GLM_TAGS),),
    ),
    Family(
        "Hy3",
        (
            Form(
                *("<tool_calls:opensource>", "<tool_call:opensource>", "<tool_sep:opensource>\n"),
                "</tool_call:opensource>",
                first="<tool_calls:opensource>\n",
                last="\n</tool_calls:opensource>",
                between="\n",
                arguments=Tags(
                    "<arg_key:opensource>",
                    "</arg_key:opensource>\n<arg_value:opensource>",
                    "</arg_value:opensource>\n",
                ),
            ),
        ),
    ),
    Family(
        "MiniMax M2",
        (
            Form(
                *("<minimax:tool_call>", '<invoke name="', '">\n', "</invoke>"),
                first="<minimax:tool_call>\n",
                last="\n</minimax:tool_call>",
                between="\n",
                arguments=_INVOKE_TAGS,
            ),
        ),
    ),
    Family(
        "MiniCPM5",
        (
            Form(
                *('<function name="', '<function name="', '">', "</function>"),
                arguments=Tags('<param name="', '">', "</param>"),
            ),
        ),
    ),
    Family("MiniMax M1", (_object("<tool_calls>\n", "\n</tool_calls>"),)),
    Family(
        "Mistral",
        (Form("[TOOL_CALLS]", "[TOOL_CALLS]", "[ARGS]", ""),),
    ),
    Family("Mistral (with identifiers)", (Form("[TOOL_CALLS]", "[TOOL_CALLS]", "[CALL_ID]{id}[ARGS]", ""),)),
    Family("Mistral Nemo", (_listed("[TOOL_CALLS]", "", tail=', "id": "{id}"}'),)),
    *(
        Family(name, (_listed(before, behind),), marks=(before,) if name == "Granite 3" else ())
        for name, (before, behind) in _LISTED.items()
    ),
    Family(
        "Command R7B, North",
        (
            Form(
                *("<|START_ACTION|>", '{"tool_call_id": "{index}", "tool_name": "', '", "parameters": ', "}"),
                first="<|START_ACTION|>[\n    ",
                last="\n]<|END_ACTION|>",
                between=",\n    ",
                keys=("tool_name", "parameters"),
            ),
        ),
    ),
    Family(
        "Apertus",
        (
            Form(
                "<|tools_prefix|>", '{"', '": ', "}", first="<|tools_prefix|>[", last="]<|tools_suffix|>", between=", "
            ),
        ),
    ),
    Family(
        "gpt-oss",
        (
            Form(
                *("<|channel|>commentary to=functions.", "<|channel|>commentary to=functions."),
                *(" <|constrain|>json<|message|>", ""),
            ),
            Form(" to=functions.", " to=functions.", "<|channel|>commentary json<|message|>", ""),
            Form(
                *("<|channel|>commentary to=functions.", "<|channel|>commentary to=functions."),
                *(" json<|message|>", ""),
            ),
        ),
    ),
    Family("DeepSeek V3.2", (_dsml("function_calls"),)),
    Family("DeepSeek V4", (_dsml("tool_calls"),)),
    Family(
        "DeepSeek R1 and V3",
        (
            Form(
                *("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>", "\n```json\n"),
                "\n```<｜tool▁call▁end｜>",
                first="<｜tool▁calls▁begin｜>",
                last="<｜tool▁calls▁end｜>",
                between="\n",
            ),
        ),
    ),
    Family(
        "DeepSeek V3.1",
        (
            Form(
                *("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"),
                first="<｜tool▁calls▁begin｜>",
                last="<｜tool▁calls▁end｜>",
            ),
        ),
    ),
    Family(
        "Kimi K2",
        (
            Form(
                *("<|tool_calls_section_begin|>", "<|tool_call_begin|>functions."),
                *(":{index}<|tool_call_argument_begin|>", "<|tool_call_end|>"),
                first="<|tool_calls_section_begin|>",
                last="<|tool_calls_section_end|>",
            ),
        ),
        marks=("<|tool_call_argument_begin|>",),
    ),
    Family(
        "Solar Open",
        (
            Form(
                *("<|tool_calls|>", "<|tool_call:begin|>{id}<|tool_call:name|>", "<|tool_call:args|>"),
                "<|tool_call:end|>",
                first="<|tool_calls|>",
            ),
        ),
    ),
    Family(
        "LFM2",
        (
            Form(
                *("<|tool_call_start|>", "", "(", ")"),
                first="<|tool_call_start|>[",
                last="]<|tool_call_end|>",
                between=", ",
                arguments="python",
            ),
        ),
        marks=("<|tool_list_start|>", "List of tools: ["),
    ),
    Family("Gemma 4", (Form("<|tool_call>", "<|tool_call>call:", "", "<tool_call|>", arguments="gemma"),)),
    Family("Functionary 3.1", (Form("<function=", "<function=", ">", "</function>"),)),
    Family("GigaChat 3.1", (_object("<|function_call|>", ""),)),
    Family(
        "Llama 3",
        (
            Form(
                *('{"name": "', '{"name": "', '", "parameters": ', "}"),
                keys=("name", "parameters"),
                only_first=True,
                between="; ",
            ),
            Form(
                *('{"type": "function", "name": "', '{"type": "function", "name": "', '", "parameters": ', "}"),
                keys=("name", "parameters"),
                only_first=True,
                between="; ",
            ),
            Form(
                *("<|python_tag|>", '<|python_tag|>{"name": "', '", "parameters": ', "}"),
                keys=("name", "parameters"),
                between="; ",
            ),
        ),
    ),
)
