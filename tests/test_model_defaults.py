"""What a model file carries for its runs, and that the user's own word counts more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fakes import TINY_STYLE, FakeEngine, FakeModel

from hogwild_local.cli.main import cli
from hogwild_local.errors import InvalidArgument, ModelError
from hogwild_local.hogwild import Hogwild
from hogwild_local.options import SAMPLERS, SamplingParams, Worker
from hogwild_local.prompts.patterns import check_pattern
from hogwild_local.prompts.style import PromptStyle

DEFAULT = Path(__file__).parent.parent / "hogwild_local" / "prompts" / "default.toml"
OWN_STYLE = DEFAULT.read_text(encoding="utf-8").replace("### Finished steps", "### Own heading")


def engine(*scripts: str, **metadata: str) -> FakeEngine:
    model = FakeModel()
    model.metadata = {key.replace("__", "."): value for key, value in metadata.items()}
    return FakeEngine(*scripts, model=model)


def opened(fake: FakeEngine, **options: object) -> Hogwild:
    return Hogwild("m.gguf", engine=fake.engine, **options)  # type: ignore[arg-type]


def command(fake: FakeEngine, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["run", "-m", "m.gguf", "--plain", "-n", "1", *arguments], obj=fake.engine)


def test_a_model_without_defaults_has_those_of_the_package() -> None:
    with opened(engine()) as hw:
        assert (hw.prompts, hw.sampling, hw.examples) == (PromptStyle.default(), SamplingParams(), ())


def test_the_style_of_the_model_is_used_unless_one_is_given() -> None:
    fake = engine(hogwild__prompts=OWN_STYLE)
    with opened(fake) as hw:
        assert hw.prompts.layout["combined"].opening == "### Own heading"
    with opened(fake, prompts=TINY_STYLE) as hw:
        assert hw.prompts == TINY_STYLE


def test_sampling_is_the_models_where_the_user_says_nothing() -> None:
    fake = engine(general__sampling__temp="0.250000", general__sampling__top_k="7", general__sampling__min_p="0.5")
    own = SamplingParams(temperature=0.25, top_k=7, min_p=0.5)
    with opened(fake) as hw:
        assert hw.sampling == own
        list(hw.stream("P", workers=["A", Worker("B", sampling=SamplingParams(top_k=3))], max_passes=1))
    used = [sampler.params for sampler in fake.samplers]
    assert (used[0].temperature, used[0].top_k, used[0].min_p) == (0.25, 7, 0.5)
    assert (used[1].temperature, used[1].top_k) == (0.8, 3)


def test_an_option_of_the_command_line_changes_only_what_it_names() -> None:
    fake = engine(general__sampling__temp="0.25", general__sampling__top_k="7")
    assert command(fake, "--top-k", "9", "P").exit_code == 0
    assert (fake.samplers[0].params.temperature, fake.samplers[0].params.top_k) == (0.25, 9)


@pytest.mark.parametrize(
    ("sequence", "order"),
    [
        ("penalties;temperature;top_k;top_p;min_p", ("penalties", "temperature", "top_k", "top_p", "min_p")),
        ("penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature", SAMPLERS),
        ("temp;top-p", ("temperature", "top_p")),
        (" ; ", SAMPLERS),
    ],
)
def test_the_order_of_the_models_sampler_is_used(sequence: str, order: tuple[str, ...]) -> None:
    with opened(engine(general__sampling__sequence=sequence)) as hw:
        assert hw.sampling == SamplingParams(sampler_order=order)
        assert hw.own_sampling == ({"sampler_order": order} if sequence.strip(" ;") else {})


def test_what_the_models_file_says_is_known_field_by_field() -> None:
    with opened(engine(general__sampling__temp="0.6", general__sampling__xtc_probability="0.0")) as hw:
        assert hw.own_sampling == {"temperature": 0.6}
    with opened(engine()) as hw:
        assert hw.own_sampling == {}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("xtc_probability", "0.500000", r"xtc_probability is 0\.500000"),
        ("mirostat", "2", "mirostat is 2"),
        ("sequence", "infill;top_k", "sequence has 'infill'"),
    ],
)
def test_a_sampler_that_there_is_not_here_is_warned_of(key: str, value: str, said: str) -> None:
    with pytest.warns(UserWarning, match=rf"the model's own general\.sampling\.{said}.*left out") as caught:
        opened(engine(**{f"general__sampling__{key}": value})).close()
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("general__sampling__sequence", "top_k;" * 100),
        ("general__sampling__sequence", "top_k;top_p;top_k"),
        ("hogwild__prompts", "[rules]\none = 1"),
        ("hogwild__examples", "[1"),
        ("hogwild__examples", '["a", 1]'),
        ("general__sampling__top_k", "many"),
        ("general__sampling__temp", "nan"),
        ("general__sampling__temp", "1e999"),
        ("general__sampling__temp", "-1e38"),
        ("general__sampling__top_k", "9" * 5000),
        ("general__sampling__penalty_last_n", "2147483647"),
        ("general__sampling__penalty_repeat", "0"),
        ("hogwild__examples", "[" * 100_000),
        ("hogwild__examples", "9" * 5000),
        ("hogwild__examples", '["' + "a" * 2**20 + '"]'),
        ("hogwild__examples", '["\\ud800"]'),
        ("hogwild__prompts", "a = " + "[" * 100_000),
        ("hogwild__prompts", "a = " + "9" * 5000),
        ("hogwild__prompts", "# " + "a" * 2**20),
        ("hogwild__prompts", OWN_STYLE.replace("{{ problem }}", "{{ 'x' * 10**10 }}")),
        ("hogwild__prompts", OWN_STYLE.replace("{{ problem }}", "{% for a in range(99999) %}x{% endfor %}" * 99)),
        ("hogwild__prompts", OWN_STYLE.replace("sentence_end = '''", "sentence_end = '''(a+)+$|")),
        ("hogwild__prompts", OWN_STYLE.replace("sentence_end = '''", "sentence_end = '''" + "(" * 9000)),
    ],
)
def test_a_broken_default_is_an_error_of_the_model_that_names_the_key(key: str, value: str) -> None:
    fake = engine(**{key: value})
    with pytest.raises(ModelError, match=r"hogwild\.|general\.sampling"):
        opened(fake)
    assert fake.model.closed


def test_a_style_for_very_many_workers_takes_no_time() -> None:
    with opened(engine(hogwild__prompts=OWN_STYLE + "\n[workers]\nmost = 2000000000\n")) as hw:
        assert hw.prompts.workers.most == 2_000_000_000


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+$", r"(a|ba?|b)*c", r"(a|ab|b)*c", r"(\s|.)*x", r"(a*)*", r"(a?){40}a", r"(\w+\s?)*$",
        r"(.*)=(.*);(.*)!",
        r"a?a?a?a?a?aaaaa", r"(?=a)b", r"(a)\1", r"(?i)(aX|Ay|.)*b", r"([^x]|yz)*z", "a" * 400,
    ],
)  # fmt: skip
def test_a_pattern_that_may_search_for_ever_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidArgument, match=r"answer\.pattern"):
        check_pattern("answer.pattern", pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        PromptStyle.default().answer.pattern, PromptStyle.default().step.sentence_end, TINY_STYLE.answer.pattern,
        r"answer: *(-?\d+)\.", r"<answer>(.*?)</answer>", r"(?i)result\s*=\s*([a-z]{1,9})", r"(\d+(,\d+)*)$", r"^\d+$",
    ],
)  # fmt: skip
def test_patterns_that_read_a_text_in_one_way_are_taken(pattern: str) -> None:
    check_pattern("answer.pattern", pattern)


def test_without_a_prompt_an_example_of_the_model_runs_and_is_shown() -> None:
    examples = [f"example {i}" for i in range(20)]
    shown = set()
    for seed in range(10):
        fake = engine(hogwild__examples=json.dumps(examples))
        result = command(fake, "--seed", str(seed))
        assert result.exit_code == 0, result.stderr
        line = result.stderr.splitlines()[1]
        assert line in examples
        assert fake.cache is not None
        prompt = [token for feeds in fake.cache.passes for token in feeds[0].tokens]
        assert line in fake.model.text(prompt)
        shown.add(line)
        assert command(engine(hogwild__examples=json.dumps(examples)), "--seed", str(seed)).stderr == result.stderr
    assert len(shown) > 3


def test_without_a_prompt_and_examples_the_command_says_what_is_missing() -> None:
    result = command(engine())
    assert result.exit_code == 2
    assert "PROMPT" in result.stderr


def test_more_workers_than_the_style_is_for_are_refused_before_anything_runs() -> None:
    fake = engine(hogwild__prompts=OWN_STYLE + "\n[workers]\nmost = 2\n")
    with opened(fake) as hw:
        with pytest.raises(InvalidArgument, match="at most 2, not 3"):
            hw.stream("P", workers=3)
        assert len(list(hw.stream("P", workers=2, max_passes=1))) > 0


def test_a_style_without_a_redundancy_question_never_asks() -> None:
    style = OWN_STYLE.replace('question = " Am I repeating what somebody else has done or is doing (yes or no)?"',
                              'question = ""')  # fmt: skip
    fake = engine("a.\n\n" * 20, "b.\n\n" * 20, hogwild__prompts=style)
    with opened(fake) as hw:
        events = list(hw.stream("P", max_passes=20, redundancy_every=1))
    assert not [event for event in events if event.kind() == "redundancy_check"]
