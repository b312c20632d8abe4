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
from hogwild_local.options import SamplingParams
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
        list(hw.stream("P", workers=["A", "B"], max_passes=1, sampling={"B": SamplingParams(top_k=3)}))
    used = [sampler.params for sampler in fake.samplers]
    assert (used[0].temperature, used[0].top_k, used[0].min_p) == (0.25, 7, 0.5)
    assert (used[1].temperature, used[1].top_k) == (0.8, 3)


def test_an_option_of_the_command_line_changes_only_what_it_names() -> None:
    fake = engine(general__sampling__temp="0.25", general__sampling__top_k="7")
    assert command(fake, "--top-k", "9", "P").exit_code == 0
    assert (fake.samplers[0].params.temperature, fake.samplers[0].params.top_k) == (0.25, 9)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hogwild__prompts", "[rules]\none = 1"),
        ("hogwild__examples", "[1"),
        ("hogwild__examples", '["a", 1]'),
        ("general__sampling__top_k", "many"),
        ("general__sampling__temp", "nan"),
    ],
)
def test_a_broken_default_is_an_error_of_the_model_that_names_the_key(key: str, value: str) -> None:
    fake = engine(**{key: value})
    with pytest.raises(ModelError, match=r"hogwild\.|general\.sampling"):
        opened(fake)
    assert fake.model.closed


def test_without_a_prompt_an_example_of_the_model_runs_and_is_shown() -> None:
    examples = [f"example {i}" for i in range(20)]
    shown = set()
    for seed in range(10):
        fake = engine(hogwild__examples=json.dumps(examples))
        result = command(fake, "--seed", str(seed))
        assert result.exit_code == 0, result.stderr
        line = result.stderr.splitlines()[0]
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
