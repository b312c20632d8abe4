"""Prompts: the default words, replacing them, and the model's chat template."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from fakes import TINY_STYLE, FakeModel

from hogwild_local.errors import InvalidArgument, ModelError
from hogwild_local.prompts.chat_template import ChatTemplate
from hogwild_local.prompts.style import LayoutTexts, PromptStyle, Wording
from hogwild_local.workers.layouts import LAYOUTS

DEFAULT = (resources.files("hogwild_local.prompts") / "default.toml").read_text(encoding="utf-8")
USER = [{"role": "user", "content": "2+2?"}]
# Shapes of templates: plain, with a switch for thinking, always thinking, without a system role (two).
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SWITCH = CHATML + "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
ALWAYS = CHATML + "{{ '<think>\\n' }}"
MODE = CHATML + "{{ {'enabled': '<mm:think>', 'disabled': '</mm:think>'}[thinking_mode] }}"
EFFORT = CHATML + "{{ {'high': '<think:x>', 'no_think': '<think:x></think:x>'}[reasoning_effort] }}"
MARKED = "{% if 0 %}[THINK][/THINK]{% endif %}" + CHATML
CHANNELS = "{% if 0 %}<|channel|>analysis<|message|>{% endif %}" + CHATML
PUT_TOGETHER = CHATML + "{{ '<%s>' % 'think' if thinking else '' }}"
ONLY_ENABLE = CHATML + "{% if enable_thinking %}{% endif %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
DROPS_SYSTEM = "{% for m in messages %}{% if m.role != 'system' %}[{{ m.content }}]{% endif %}{% endfor %}"


def wording(n: int, layout: str = "combined", thinking: bool = True) -> Wording:
    return Wording(PromptStyle.default(), ["Alice", "Bob", "Carol", "Dave"][:n], layout, thinking)


def rendered(template: str | None, thinking: bool = True, messages: Any = USER) -> str:
    return ChatTemplate(FakeModel(template)).render("RULES", messages, thinking).text


# -- the default --


def test_a_single_worker_reads_nothing_of_others_or_names() -> None:
    alone = wording(1)
    assert "{" not in alone.rules().replace("\\boxed{result}", "")
    assert "Alice" not in alone.rules()
    assert alone.layout == LayoutTexts()
    assert (alone.first(0), alone.prefix(0, 2)) == ("", "")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n", [2, 3, 4])
def test_the_rules_name_all_workers_and_the_headings_of_the_layout(layout: str, n: int) -> None:
    many = wording(n, layout)
    for name in ("Alice", "Bob", "Carol", "Dave"):
        assert (name in many.rules()) is (name in many._names)
    for text in (many.layout.opening, many.layout.header, many.layout.separator):
        heading = text.strip().rpartition("\n")[2]
        assert heading in many.rules()
    assert r"\boxed{result}" in many.rules()


def test_two_workers_are_not_spoken_of_as_many() -> None:
    assert "the other writer" in wording(2).rules()
    assert "the other writer" not in wording(3).rules()


def test_only_the_first_worker_suggests_how_to_share_the_work() -> None:
    firsts = [wording(3).first(i) for i in range(3)]
    assert [first.partition("I am")[0] for first in firsts] == [
        "\n\n**Alice [1]:** ",
        "\n\n**Bob [1]:** ",
        "\n\n**Carol [1]:** ",
    ]
    assert ["I suggest" in first for first in firsts] == [True, False, False]
    assert "Bob and Carol" in firsts[0]


def test_step_prefix_and_question() -> None:
    assert wording(2).prefix(1, 7) == "**Bob [7]:**"
    question = PromptStyle.default().redundancy.question
    assert wording(2).prefix(1, 7, question=True) == "**Bob [7]:**" + question


def test_the_users_text_is_never_a_template() -> None:
    assert wording(2).task("{{ names }} {% if %}") == "{{ names }} {% if %}"


def test_the_last_user_message_becomes_the_task_and_the_opening_ends_the_prompt() -> None:
    style = replace(TINY_STYLE, rules=replace(TINY_STYLE.rules, task="<{{ problem }}>"))
    messages = [*USER, {"role": "assistant", "content": "4"}, {"role": "user", "content": "sure?"}]
    text = Wording(style, ["A", "B"], "combined", False).prompt(ChatTemplate(FakeModel()), messages).text
    assert text == "s=R;u=2+2?;a=4;u=<sure?>;|"


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        (r"so \boxed{42}.", ["42"]),
        (r"\boxed{\frac{1}{\sqrt{2}}}", [r"\frac{1}{\sqrt{2}}"]),
        (r"\boxed{1} no, \boxed{ 2 }", ["1", "2"]),
        (r"\boxed{1} \boxed{}", ["1"]),
        (r"\boxed{}", []),
        (r"\boxed{4", []),
        ("42", []),
    ],
)
def test_an_answer_is_what_stands_in_a_box(text: str, answers: list[str]) -> None:
    assert PromptStyle.default().find_answers(text) == answers


def test_the_finisher_ends_where_an_answer_begins() -> None:
    style = PromptStyle.default()
    assert style.finisher.text.startswith("\n\n")
    assert style.find_answers(style.finisher.text + "42}") == ["42"]


@pytest.mark.parametrize(
    "end", [".", "!", "?", "。", '."', ".)", ".**", "…", "$x=1$.", "؟", "‽", "།", "\u1803", "჻", "¶", "❧"]
)
def test_what_ends_a_sentence(end: str) -> None:
    assert PromptStyle.default().sentence_end.search("So it is" + end)


@pytest.mark.parametrize("end", [":", ",", " =", "", "(", ". and"])
def test_what_does_not(end: str) -> None:
    assert not PromptStyle.default().sentence_end.search("So it is" + end)


# -- replacing it --


def test_a_style_can_be_loaded_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(DEFAULT.replace("Working side by side", "Zusammen"), encoding="utf-8")
    style = PromptStyle.load(path)
    assert "# Zusammen" in Wording(style, ["A", "B"], "combined", True).rules()
    assert replace(style, rules=PromptStyle.default().rules) == PromptStyle.default()


def keys() -> list[tuple[str, str]]:
    tables = tomllib.loads(DEFAULT)
    return [(table, key) for table in tables if table != "layout" for key in tables[table]]


@pytest.mark.parametrize(("table", "key"), keys())
def test_a_missing_key_is_an_error_that_names_it(table: str, key: str) -> None:
    # Renamed, it is both missing and unknown; the unknown name is what the user can correct.
    head, _, rest = DEFAULT.partition(f"[{table}]\n")
    spoilt = f"{head}[{table}]\n" + rest.replace(f"\n{key} = ", f"\nx{key} = ", 1)
    with pytest.raises(InvalidArgument, match=rf"unknown key {table}\.x{key}"):
        PromptStyle.parse(spoilt)
    if table in ("reply", "role", "said"):  # without it there is none
        return
    with pytest.raises(InvalidArgument, match=rf"missing key {table}$"):
        PromptStyle.parse(head + rest.partition("\n[")[1][:1] + "[" + rest.partition("\n[")[2])


def test_a_missing_key_in_a_table_is_named() -> None:
    spoilt = DEFAULT.replace('closes_with = "}"\n', "")
    with pytest.raises(InvalidArgument, match=r"missing key answer\.closes_with"):
        PromptStyle.parse(spoilt)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('closes_with = "}"', "closes_with = 3", "answer.closes_with must be a string"),
        ("strings = []", 'strings = ["a", 1]', "stop.strings must be a list of strings"),
        ("strings = []", 'strings = [""]', "stop.strings must not hold an empty one"),
        ('separator = "\\n\\n"', 'separator = ""', "step.separator must not be empty"),
        ("{{ problem }}", "{{ probelm }}", "rules.task cannot be rendered.*probelm"),
        ("{{ step }}", "{{ stop", "step.prefix cannot be rendered"),
        ("[answer]", "[answers]", "unknown key answers"),
        ("[layout.combined]", "[layout.combined]\nfooter = ''", r"unknown key layout\.combined\.footer"),
        ("[stop]", "[stop", "no valid TOML"),
    ],
)
def test_a_faulty_file_is_refused_and_the_fault_named(old: str, new: str, fault: str) -> None:
    assert old in DEFAULT
    with pytest.raises(InvalidArgument, match=fault):
        PromptStyle.parse(DEFAULT.replace(old, new))


@pytest.mark.parametrize(("pattern", "fault"), [("(", "regular expression"), ("x", "needs a group")])
def test_the_answer_pattern_is_checked(pattern: str, fault: str) -> None:
    with pytest.raises(InvalidArgument, match=fault):
        replace(TINY_STYLE, answer=replace(TINY_STYLE.answer, pattern=pattern))


@pytest.mark.parametrize(
    ("part", "values", "fault"),
    [
        ("rules", {"task": None}, "rules.task must be a string"),
        ("step", {"sentence_end": 3}, "step.sentence_end must be a string"),
        ("step", {"forbidden": "<think>"}, "step.forbidden must be a list of strings"),
        ("stop", {"strings": (1,)}, "stop.strings must be a list of strings"),
        ("workers", {"most": -1}, "workers.most must be a whole number"),
        ("answer", {"example": "\ud800"}, "answer.example holds what is no character"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(part: str, values: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidArgument, match=fault):
        replace(TINY_STYLE, **{part: replace(getattr(TINY_STYLE, part), **values)})


@pytest.mark.parametrize("part", ["rules", "layout", "workers", "stop"])
def test_a_part_of_the_wrong_type_is_named(part: str) -> None:
    for value in (None, "text", {"combined": "text"}):
        with pytest.raises(InvalidArgument, match=f"prompts: {part}.* must be"):
            replace(TINY_STYLE, **{part: value})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"none\.toml"):
        PromptStyle.load(tmp_path / "none.toml")


def test_a_template_cannot_reach_python() -> None:
    rules = replace(TINY_STYLE.rules, many="{{ ''.__class__.__mro__ }}")
    with pytest.raises(InvalidArgument, match=r"rules\.many"):
        replace(TINY_STYLE, rules=rules)


# -- chat templates --


def test_rules_are_the_system_message() -> None:
    assert rendered(CHATML) == (
        "<|im_start|>system\nRULES<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_users_own_system_message_follows_the_rules() -> None:
    text = rendered(CHATML, messages=[{"role": "system", "content": "Be brief."}, *USER])
    assert "system\nRULES\n\nBe brief.<|im_end|>" in text


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
def test_without_a_system_role_the_rules_open_the_first_user_message(template: str) -> None:
    assert "RULES\n\n2+2?" in rendered(template)


def test_without_a_template_there_are_plain_headings() -> None:
    assert rendered(None) == "### System\nRULES\n\n### User\n2+2?\n\n### Assistant\n"


@pytest.mark.parametrize(
    ("template", "thinking", "end"),
    [
        (CHATML, True, "assistant\n"),
        (CHATML, False, "assistant\n"),
        (SWITCH, True, "assistant\n<think>\n"),
        (SWITCH, False, "<think>\n\n</think>\n\n"),
        (ALWAYS, True, "assistant\n<think>\n"),
        (ALWAYS, False, "assistant\n<think>\n\n</think>\n\n"),
        (MODE, True, "assistant\n<mm:think>"),
        (MODE, False, "assistant\n</mm:think>"),
        (EFFORT, True, "assistant\n<think:x>"),
        (EFFORT, False, "assistant\n<think:x></think:x>"),
        (MARKED, True, "assistant\n[THINK]"),
        (MARKED, False, "assistant\n"),
        (CHANNELS, True, "assistant\n<|channel|>analysis<|message|>"),
        (CHANNELS, False, "assistant\n<|channel|>final<|message|>"),
        (PUT_TOGETHER, True, "assistant\n<think>"),
        (PUT_TOGETHER, False, "assistant\n"),
        (ONLY_ENABLE, True, "assistant\n"),
    ],
)
def test_thinking_is_open_or_closed_as_asked(template: str, thinking: bool, end: str) -> None:
    text = rendered(template, thinking)
    assert text.endswith(end)
    assert text.count("<think>") == end.count("<think>")


def test_a_word_that_is_no_switch_is_not_given() -> None:
    assert rendered(CHATML + "{{ reasoning_effort == 'high' or reasoning_effort }}") == rendered(CHATML + "")


def test_what_a_template_is_not_told_is_nothing_also_where_it_is_joined_to_a_text() -> None:
    assert rendered("{{ messages[0].content + functions }}{{ 'It is ' + weather + '.' }}") == "RULESIt is ."


def test_templates_get_what_hugging_face_gives_them() -> None:
    template = (
        "{{ bos_token }}{{ eos_token }}{{ strftime_now('%Y') | length }}{{ [1, 'é'] | tojson }}"
        "{% generation %}G{% endgeneration %}"
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}"
    )
    assert rendered(template) == '<bos><eos>4[1, "é"]GRULES'


def test_a_template_that_refuses_all_messages_is_quoted() -> None:
    with pytest.raises(InvalidArgument, match="roles must alternate"):
        rendered("{{ raise_exception('roles must alternate') }}")


def test_a_broken_template_is_the_models_fault() -> None:
    with pytest.raises(ModelError, match="chat template"):
        rendered("{% for %}")


def test_a_models_template_cannot_reach_python() -> None:
    with pytest.raises(InvalidArgument, match="unsafe"):
        rendered("{{ messages.__class__.__mro__[1].__subclasses__() }}")
