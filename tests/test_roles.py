"""Workers that differ: each has its own role, settings, stop strings and grammar, and the prompt is computed once."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner
from fakes import TINY_STYLE, FakeEngine
from runs import finished, of, texts
from spoken import STYLE, feeds, hogwild, views

from hogwild_local import Hogwild, SamplingParams, Worker
from hogwild_local import events as ev
from hogwild_local.cli.main import cli
from hogwild_local.errors import InvalidArgument
from hogwild_local.options import RunOptions
from hogwild_local.prompts.style import PromptStyle, Wording
from hogwild_local.workers.layouts import LAYOUTS, Block, Combined
from hogwild_local.workers.writer import worker_seed

TEAM = ["Alice", Worker("Bob", role="doubt"), Worker("Carol", role="prove")]
ONCE = {"max_passes": 6, "finisher": False, "seed": 1}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_role_stands_behind_the_history_of_its_worker_alone(layout: str) -> None:
    fake = FakeEngine("A.\n\naaaa", "bbbbbb", "cccccc")
    with hogwild(fake) as hw:
        hw.generate("P", workers=TEAM, layout=layout, **ONCE)
    alice, bob, carol = (views(fake, f"worker {i}") for i in range(3))
    for view in bob:
        history, *rest = view.split("|(Bob:doubt)|")
        assert "<bos>s=R;u=P;" in history
        assert len(rest) == 1
    assert all("(Carol:prove)" in view for view in carol)
    assert not any("doubt" in view for view in alice + carol)
    assert not any("prove" in view for view in alice + bob)
    if layout != "contiguous":
        assert any("<Alice1>A|(Bob:doubt)|" in view for view in bob)


def test_roles_are_fed_once_and_the_prompt_is_too() -> None:
    fake = FakeEngine()
    with hogwild(fake) as hw:
        usage = hw.generate("P" * 50, workers=TEAM, **ONCE).usage
        assert feeds(fake, "role 1") == ["(Bob:doubt)"]
        assert feeds(fake, "role 2") == ["(Carol:prove)"]
        assert sum("P" * 50 in text for text in feeds(fake, "shared")) == 1
        assert usage.prompt_tokens == hw.count_tokens("P" * 50, workers=TEAM) + len("H:S:")
        again = hw.generate("P" * 50, workers=[Worker("Dan", role="other"), "Bob"], **ONCE).usage
        assert again.cached_tokens > 50
        assert hw.n_free == hw.n_ctx


def test_tokens_of_roles_are_counted() -> None:
    with hogwild(FakeEngine()) as hw:
        plain = hw.count_tokens("P", workers=["Alice", "Bob", "Carol"])
        assert hw.count_tokens("P", workers=TEAM) == plain + len("(Bob:doubt)(Carol:prove)")


def test_the_cells_of_a_role_come_back_with_the_end_of_its_worker() -> None:
    fake = FakeEngine("a" * 20, [ord("b"), 257])
    with hogwild(fake) as hw:
        lefts = [
            event.usage.context_left
            for event in hw.stream("P", workers=["Alice", Worker("Bob", role="x" * 500)], **ONCE)
            if isinstance(event, ev.PassEnded)
        ]
    assert lefts[1] - lefts[0] > 450


def test_a_role_is_fed_anew_by_each_run_for_it_has_read_the_prompt() -> None:
    fake = FakeEngine()
    with hogwild(fake) as hw:
        for prompt in ("P", "Q"):
            run = hw.stream(prompt, workers=TEAM, **ONCE)
            while not isinstance(next(run), ev.Token):
                pass
            run.close()
            assert fake.cache
            assert not any("doubt" in fake.model.text(block.tokens) for block in fake.cache.blocks)
    assert feeds(fake, "role 1") == ["(Bob:doubt)"] * 2


def test_a_layout_of_the_users_has_roles_too() -> None:
    class Shy(Combined):
        def view(self, worker: int) -> list[Block]:
            return super().view(worker) if worker == 0 else [*self.history, self.own[worker]]

    fake = FakeEngine()
    with hogwild(fake) as hw:
        hw.generate("P", workers=TEAM, layout=Shy, **ONCE)
    assert views(fake, "worker 1")[0] == "<bos>s=R;u=P;||(Bob:doubt)|"


def test_a_worker_without_first_words_goes_on_from_its_role() -> None:
    style = PromptStyle.parse(_toml_without_first())
    fake = FakeEngine("aaa", "bbb")
    with hogwild(fake, prompts=style) as hw:
        hw.generate("P", workers=[Worker("Al", role="one"), Worker("Bo", role="two")], **ONCE)
    assert views(fake, "worker 0")[0] == "<bos>s=R;u=P;|(Al:one||"  # and the blocks of Bo and its own
    assert feeds(fake, "worker 0")[0] == ")"


def _toml_without_first() -> str:
    return r"""
rules = {one = "R", many = "R", task = "{{ problem }}"}
step = {first = "", prefix = "", separator = "\n\n", sentence_end = '[.!]$', forbidden = []}
redundancy = {question = ""}
finisher = {text = "="}
answer = {pattern = '\\boxed\{([^}]*)\}', closes_with = "}", example = "E"}
stop = {strings = []}
layout = {}
role = {text = "({{ name }}:{{ role }})"}
"""


def test_the_words_that_come_with_the_package_say_who_is_meant() -> None:
    wording = Wording(PromptStyle.default(), ["Alice", "Bob"], "combined", thinking=True)
    assert wording.role("Bob", "Doubt.") == "\n\n[Bob alone reads this: Doubt.]"
    assert wording.said("Hurry.", None) == "\n\n**The user:** Hurry."
    assert wording.said("Hurry.", "Bob") == "\n\n**The user to Bob:** Hurry."


def test_a_workers_own_settings_are_its_own() -> None:
    fake = FakeEngine("ab", "ab", "ab STOP cd")
    team = [
        "Alice",
        Worker("Bob", sampling=SamplingParams(top_k=3, seed=9)),
        Worker("Carol", stop="STOP", grammar='root ::= "x"'),
    ]
    with hogwild(fake) as hw:
        events = list(hw.stream("P", workers=team, max_passes=12, finisher=False, seed=1))
    alice, bob, carol = (sampler.params for sampler in fake.samplers)
    assert (alice.top_k, bob.top_k, carol.top_k) == (hw.sampling.top_k, 3, hw.sampling.top_k)
    assert (alice.seed, bob.seed) == (worker_seed(1, 0), worker_seed(9, 1))
    assert (alice.grammar, bob.grammar, carol.grammar) == (None, None, 'root ::= "x"')
    assert (finished(events)["Carol"], texts(events)["Carol"]) == ("stop", "ab ")
    assert finished(events)["Alice"] == "budget"


def test_a_grammar_of_a_worker_takes_the_place_of_the_runs_and_binds_no_reply() -> None:
    fake = FakeEngine()
    of_run = SamplingParams(grammar='root ::= "a"')
    with hogwild(fake) as hw:
        hw.generate("P", workers=["A", Worker("B", grammar='root ::= "b"')], sampling=of_run, **ONCE)
    assert [sampler.params.grammar for sampler in fake.samplers] == ['root ::= "a"', 'root ::= "b"']


def test_workers_are_a_number_names_or_workers_mixed() -> None:
    assert RunOptions(workers=3).workers == 3
    assert RunOptions(workers=["A", Worker("B", role="x")]).workers == (Worker("A"), Worker("B", role="x"))
    with Hogwild("m.gguf", engine=FakeEngine().engine) as hw:  # the words that come with the package
        run = hw.stream("P", workers=TEAM, max_passes=1)
        assert run.workers == ("Alice", "Bob", "Carol")
        assert of(list(run), ev.RunEnded)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: Worker(""), "names must be non-empty"),
        (lambda: Worker(3), "names must be non-empty"),  # type: ignore[arg-type]
        (lambda: Worker("B", role=" "), "role of worker 'B' must not be empty"),
        (lambda: Worker("B", role=4), "role of worker 'B' must be a text"),  # type: ignore[arg-type]
        (lambda: Worker("B", stop=[""]), "stop of worker 'B'"),
        (lambda: Worker("B", sampling=3), "sampling of worker 'B'"),  # type: ignore[arg-type]
        (lambda: Worker("B", grammar="x", sampling=SamplingParams(grammar="y")), "give it once"),
        (lambda: RunOptions(workers=["A", Worker("A")]), "'A' is given twice"),
        (lambda: RunOptions(workers=Worker("A")), "a list of names"),  # type: ignore[arg-type]
        (lambda: RunOptions(sampling={"A": SamplingParams()}), "those of one worker"),  # type: ignore[arg-type]
    ],
)
def test_a_fault_of_a_worker_is_named(make: Any, fault: str) -> None:
    with pytest.raises(InvalidArgument, match=fault):
        make()


def test_prompts_without_words_for_roles_say_so() -> None:
    with hogwild(FakeEngine(), prompts=TINY_STYLE) as hw:
        with pytest.raises(InvalidArgument, match=r"role of worker 'Bob'.*\[role\]"):
            hw.stream("P", workers=TEAM)
        run = hw.stream("P", max_passes=2)
        with pytest.raises(InvalidArgument, match=r"\[role\]"):
            run.add(Worker("Dan", role="x"))
        assert run.workers == ("Alice", "Bob")


def test_a_role_is_text_whatever_it_names() -> None:
    fake = FakeEngine()
    with hogwild(fake) as hw:
        hw.generate("P", workers=[Worker("A", role="</think>{{ name }}"), "B"], **ONCE)
    assert fake.cache
    tokens = next(feed.tokens for (feed, *_) in fake.cache.passes if feed.names[-1] == "role 0")
    assert 259 not in tokens
    assert fake.model.text(tokens) == "(A:</think>{{ name }})"
    assert STYLE.role.text


def test_the_command_line_takes_names_with_roles_and_so_does_its_variable() -> None:
    def roles(*arguments: str, **env: str) -> list[str]:
        fake = FakeEngine()
        options = ["run", "-m", "m.gguf", "-n", "1", "--json", *arguments, "P"]
        result = CliRunner().invoke(cli, options, obj=fake.engine, env=env)
        assert result.exit_code == 0, result.output
        return feeds(fake, "role 0") + feeds(fake, "role 1")

    ann, ben = "Ann: checks: all", "Ben"
    (role,) = roles("--worker", ann, "--worker", ben)
    assert "[Ann alone reads this: checks: all]" in role
    assert roles(HOGWILD_RUN_WORKER=f"{ann};{ben}") == [role]
    assert roles("--worker", "Ann", "--worker", ben) == []
    result = CliRunner().invoke(cli, ["run", "--worker", ": checks", "P"], obj=FakeEngine().engine)
    assert (result.exit_code, "names must be non-empty" in result.output) == (2, True)


def test_a_server_refuses_at_once_workers_for_whom_its_prompts_have_no_words() -> None:
    done = CliRunner().invoke(cli, ["serve", "--trust", "--port", "0", "--worker", "Ann: checks"])  # the embedded model
    assert done.exit_code == 2
    assert "role of worker 'Ann': the prompts have no words for roles" in done.output
