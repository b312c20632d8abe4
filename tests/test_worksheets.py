"""The task, the lessons, and that training computes what the engine computes."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hogwild_local import Hogwild, Model, SharedCache
from hogwild_local.workers.layouts import make_layout
from models.worksheets.alphabet import BOS, EOS, IDS, decode, encode
from models.worksheets.batches import NO_TARGET, make_batch
from models.worksheets.collaboration import NEVER, Collaboration, Lesson, Visibility, text_of
from models.worksheets.items import Worksheet, random_worksheet
from models.worksheets.replies import reply_to
from models.worksheets.reply import OPENING, with_reply

SEEDS = st.integers(0, 2**32)
WORKERS = st.integers(1, 4)
VISIBILITIES: tuple[Visibility, ...] = ("combined", "interleaved", "contiguous")


def lesson(
    seed: int, n_workers: int, visibility: Visibility, freedom: float = 0.0, n_items: int | None = None
) -> Lesson:
    rng = random.Random(seed)
    return Collaboration(random_worksheet(rng, n_items), n_workers, visibility, rng, freedom).lesson()


def computed(made: Lesson) -> list[str]:
    """The items that were worked out to the end, those that were given apart; a fix begins with its mark."""
    done = [step for step in made.steps if step.worker >= 0 and step.value_from < NEVER]
    return ["!" * step.is_fix + step.label for step in done]


@given(SEEDS)
def test_the_answer_is_what_arithmetic_says_of_the_text(seed: int) -> None:
    sheet = random_worksheet(random.Random(seed))
    values: dict[str, int] = {}
    for line in sheet.text.split("\n"):
        if line.startswith("Z:"):
            continue
        label, first, operations = re.fullmatch(r"([a-l])=([a-l]|\d\d)((?:[-+^]\d\d)+)", line).groups()  # type: ignore[union-attr]
        value = values[first] if first in values else int(first)
        for sign, number in re.findall(r"([-+^])(\d\d)", operations):
            value = {"+": value + int(number), "-": value - int(number), "^": max(value, int(number))}[sign]
            assert 0 <= value <= 99
        values[label] = value
    assert sheet.answer == "".join(f"{label}{value:02}" for label, value in values.items())


@given(SEEDS)
def test_at_most_one_given_result_is_wrong_and_its_working_shows_it(seed: int) -> None:
    sheet = random_worksheet(random.Random(seed), has_given=True)
    steps = [line[2:] for line in sheet.text.split("\n") if line.startswith("Z:")]
    assert [step[0] for step in steps] == list(sheet.given) != []
    wrong = [step[0] for step in steps if step != sheet.step(step[0])]
    assert wrong == ([sheet.wrong] if sheet.wrong else [])
    assert all(step.startswith(sheet.working(step[0])) for step in steps)


@given(SEEDS, WORKERS, st.sampled_from(("combined", "contiguous")))
def test_workers_who_see_each_other_compute_each_item_once(seed: int, n: int, visibility: Visibility) -> None:
    made = lesson(seed, n, visibility)
    left = [item.label for item in made.sheet.items if item.label not in made.sheet.given]
    fixes = [f"!{made.sheet.wrong}"] if made.sheet.wrong else []
    assert sorted(computed(made)) == sorted([*left, *fixes])


@settings(deadline=None)
@given(SEEDS, WORKERS, st.sampled_from(VISIBILITIES), st.sampled_from((0.0, 0.3)))
def test_somebody_writes_the_right_answer_whatever_they_pick(
    seed: int, n: int, visibility: Visibility, freedom: float
) -> None:
    made = lesson(seed, n, visibility, freedom)
    texts = [text_of(made, worker).replace("\0", "") for worker in range(n)]
    assert any(text.endswith(f"?{made.sheet.answer}\n") for text in texts)


@given(SEEDS, st.integers(2, 4))
def test_two_who_take_the_same_item_never_both_finish_it_when_they_see_each_other(seed: int, n: int) -> None:
    made = lesson(seed, n, "combined", freedom=0.5)
    assert len(set(computed(made))) == len(computed(made))


@given(SEEDS, st.integers(1, 4))
def test_every_choice_that_was_not_free_is_a_target(seed: int, n: int) -> None:
    made = lesson(seed, n, "combined", freedom=0.3)
    batch = make_batch([made])
    wanted = [IDS[fed.target] for stream in made.streams for fed in stream if not fed.is_free]
    targets = batch.targets[:, batch.prompt_length :]
    assert targets[targets != NO_TARGET].tolist() == wanted


@given(SEEDS)
def test_a_given_result_teaches_the_right_one_and_a_mark_where_it_is_wrong(seed: int) -> None:
    rng = random.Random(seed)
    made = Collaboration(random_worksheet(rng, has_given=True), 1, "combined", rng).lesson()
    batch = make_batch([made])
    taught = [at for at in range(batch.prompt_length) if batch.targets[0, at] != NO_TARGET]
    assert len(taught) == 3 * len(made.sheet.given)
    for label, at in zip(made.sheet.given, taught[::3], strict=True):
        assert made.prompt[at - 3 : at].endswith(f";{label}=")  # BOS is not in this text
        mark = "!" if label == made.sheet.wrong else "\n"
        assert decode(batch.targets[0, at : at + 3].tolist()) == f"{made.sheet.result(label):02}{mark}"


@given(SEEDS, WORKERS, st.sampled_from(VISIBILITIES))
def test_after_the_answer_the_reply_has_all_results_and_what_was_wrong(seed: int, n: int, seen: Visibility) -> None:
    made = lesson(seed, n, seen)
    reply = "".join(with_reply(made, made.n_passes).reply)
    results, _, noticed = reply.removesuffix(EOS).partition(". ")
    found = re.findall(r"([a-l]) = (\d\d)", results)
    assert "".join(label + value for label, value in found) == made.sheet.answer
    assert results.startswith("The results are a = ")
    assert results.count(" and ") == 1
    wrong = f"The given {made.sheet.wrong} = {made.sheet.wrong_result:02} was wrong."
    assert noticed == (wrong if made.sheet.wrong else "")


@given(SEEDS, WORKERS, st.sampled_from(VISIBILITIES), st.data())
def test_after_the_budget_the_reply_has_the_results_that_were_written(
    seed: int, n: int, seen: Visibility, data: st.DataObject
) -> None:
    made = lesson(seed, n, seen)
    stopped = with_reply(made, data.draw(st.integers(1, made.n_passes - 1)))
    streams = ["".join(fed.tokens for fed in stream).replace("\0", "") for stream in stopped.streams]
    given = [line for line in made.sheet.text.split("\n") if line.startswith("Z:")]
    lines = [line for text in [*given, *streams] for line in text.split("\n")]
    ends = [re.search(r"[;]([a-l])=(\d\d)$", line) for line in lines]
    wrong = (made.sheet.wrong, f"{made.sheet.wrong_result:02}")
    written = {end[1]: end[2] for end in ends if end and end.groups() != wrong}
    told = re.findall(r"([a-l]) (?:= (\d\d)|is not done)", "".join(stopped.reply).partition(". ")[0])
    assert dict(told) == {item.label: written.get(item.label, "") for item in made.sheet.items}
    assert ("So far" in "".join(stopped.reply)) == (len(written) < len(made.sheet.items))
    assert (" was wrong." in "".join(stopped.reply)) == any("!" in text for text in streams)


@given(SEEDS, WORKERS, st.sampled_from(VISIBILITIES), st.data())
def test_what_a_reply_had_to_be_is_read_off_the_steps(seed: int, n: int, seen: Visibility, data: st.DataObject) -> None:
    made = lesson(seed, n, seen)
    stopped = with_reply(made, data.draw(st.integers(1, made.n_passes)))
    streams = ["".join(fed.tokens for fed in stream).replace("\0", "") for stream in stopped.streams]
    steps = [step for text in streams for step in text.strip().split("\n")]
    assert reply_to(made.sheet, steps) + EOS == "".join(stopped.reply)


@given(SEEDS, WORKERS, st.sampled_from(VISIBILITIES))
def test_the_targets_of_a_reply_are_all_its_words(seed: int, n: int, seen: Visibility) -> None:
    made = lesson(seed, n, seen, n_items=3)
    batch = make_batch([with_reply(made, made.n_passes), lesson(seed + 1, n, seen, n_items=12)])
    begin = batch.prompt_length + batch.current.shape[1]
    targets, fed = batch.targets[0, begin:], batch.tokens[0, begin:]
    wanted = np.flatnonzero(targets != NO_TARGET)
    assert decode(targets[wanted].tolist()) == "".join(with_reply(made, made.n_passes).reply)
    assert decode(fed[: wanted[-1] + 1].tolist()) + EOS == OPENING + decode(targets[wanted].tolist())
    assert (batch.targets[1, begin:] == NO_TARGET).all()


def replay(cache: SharedCache, made: Lesson) -> tuple[np.ndarray, list[list[np.ndarray]], np.ndarray]:
    """The engine's logits of the prompt's last token, of each worker's pass, and of each token of the reply, with the
    blocks of a real layout."""
    layout = make_layout(made.visibility)
    n = len(made.streams)
    layout.open(cache, n, [IDS[BOS], *encode(made.prompt)])
    try:
        ((block, tokens),) = layout.prefills
        prompt = cache.decode([([block], tokens)])[0].copy()
        rows: list[list[np.ndarray]] = [[] for _ in range(n)]
        for at in range(made.n_passes):
            for worker, stream in enumerate(made.streams):
                if len(stream) == at:  # before the last pass
                    layout.retire(worker)
            feeds = [(worker, stream[at]) for worker, stream in enumerate(made.streams) if len(stream) > at]
            views = [(layout.view(worker), encode(fed.tokens)) for worker, fed in feeds]
            for (worker, fed), row in zip(feeds, cache.decode(views) if views else (), strict=True):
                rows[worker].append(row.copy())
                goes_on = [later for later in made.streams[worker][at + 1 :] if later.step == fed.step]
                if fed.target == "\n" and not goes_on:  # as a step does that ends with the whole work
                    layout.end_step(worker)
        for worker, stream in enumerate(made.streams):
            if len(stream) == made.n_passes:
                layout.retire(worker)
        own, said = cache.block("reply"), []
        for token in [*encode(OPENING), *(IDS[word] for word in made.reply[:-1])]:
            said.append(cache.decode([(layout.closing_view(own), [token])])[0].copy())
        own.free()
    finally:
        layout.close()
    return prompt, rows, np.stack(said)


@pytest.fixture(scope="module")
def random_network(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, Path]:
    """A network with weights large enough for attention to be sharp, and its file."""
    torch = pytest.importorskip("torch", reason="training needs PyTorch: pip install '.[train]'")
    from models.worksheets.export import export
    from models.worksheets.network import Network, Size

    torch.manual_seed(0)
    network = Network(Size(layers=3))
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() == 2:
                weight.normal_(std=weight.shape[1] ** -0.5)
            else:
                weight.normal_(1, 0.1)
    path = tmp_path_factory.mktemp("network") / "random.gguf"
    export(network, path, "f32")
    return network, path


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("visibility", VISIBILITIES)
def test_training_computes_the_logits_of_the_engine(
    random_network: tuple[object, Path], visibility: Visibility, n: int
) -> None:
    """f32 weights and cache: 1e-3 is 30 times what was seen; a wrong position or mask gives 0.2 and more."""
    import torch

    from models.worksheets.network import Places

    network, path = random_network
    lessons = [lesson(seed, n, visibility, freedom=0.2, n_items=items) for seed, items in ((n, 4), (n + 10, 5))]
    whole, ending, amid = (lessons[0], lessons[1], lesson(n + 20, n, visibility, n_items=6))
    # Stopped as a step ends, which takes the worker out of the last pass; and in the midst of steps.
    n_passes = next(at + 1 for at in range(40, 99) if any(stream[at].target == "\n" for stream in ending.streams))
    lessons = [with_reply(whole, whole.n_passes), with_reply(ending, n_passes), with_reply(amid, 45)]
    batch = make_batch(lessons)
    every = torch.ones(batch.tokens.shape, dtype=torch.bool)
    with torch.no_grad():
        places = Places.of(batch, network.size, torch.float32)  # type: ignore[attr-defined]
        ours = network(torch.from_numpy(batch.tokens), places, every).view(*every.shape, -1).numpy()  # type: ignore[operator]
    p, m = batch.prompt_length, batch.current_at.shape[2]
    with Model(path, n_threads=1) as model, SharedCache(model, n_ctx=2048, type_k="f32", type_v="f32") as cache:
        for row, made in enumerate(lessons):
            prompt, rows, said = replay(cache, made)
            np.testing.assert_allclose(prompt, ours[row, len(made.prompt)], rtol=0, atol=1e-3)
            for worker, stream in enumerate(made.streams):
                ends = np.cumsum([len(fed.tokens) for fed in stream]) - 1
                np.testing.assert_allclose(np.stack(rows[worker]), ours[row, p + worker * m + ends], rtol=0, atol=1e-3)
            reply = ours[row, p + n * m :][: len(said)]
            np.testing.assert_allclose(said, reply, rtol=0, atol=1e-3)


@pytest.mark.parametrize("stop", [None, 30, 31, 32, 33, 34])  # among them, where a step ends
@pytest.mark.parametrize("visibility", VISIBILITIES)
def test_a_lesson_feeds_what_the_worker_loop_feeds(
    random_network: tuple[object, Path], visibility: Visibility, stop: int | None
) -> None:
    """The whole way: prompt style, tokenizer, layout and loop, with samplers that play a lesson."""
    from dataclasses import replace

    from hogwild_local.engine.protocols import native_engine

    whole = lesson(5, 3, visibility, n_items=5)
    made = with_reply(whole, stop or whole.n_passes)
    fed: dict[str, list[list[int]]] = {"worker 0": [], "worker 1": [], "worker 2": [], "reply": []}

    class Player:
        """Samples what the lesson says."""

        def __init__(self, targets: list[int]) -> None:
            self.targets = targets

        def sample(self, logits: object) -> int:
            return self.targets.pop(0)

        def close(self) -> None:
            pass

    texts = [*([part.target for part in stream if not part.is_free] for stream in made.streams), made.reply]
    players = iter([Player([IDS[token] for token in text]) for text in texts])
    engine = replace(native_engine(), sampler=lambda model, params: next(players))
    with Hogwild(random_network[1], n_threads=1, engine=engine) as hw:
        decode, prefill, prefilled = hw._cache.decode, hw._cache.prefill, []

        def spy(views: list[tuple[list[object], list[int]]], samplers: list[Player | None]) -> list[int | None]:
            for blocks, tokens in views:
                fed[blocks[-1].name].append(list(tokens))
            decode(views)
            return [None if player is None else player.sample(None) for player in samplers]

        def spy_on_prompt(views: list[tuple[list[object], list[int]]], n_later: int) -> None:
            prefilled.extend(token for _, tokens in views for token in tokens)
            prefill(views, n_later)

        hw._cache.next_tokens, hw._cache.prefill = spy, spy_on_prompt
        result = hw.generate(made.sheet.text, workers=3, layout=visibility, max_passes=stop or 1024)
    assert prefilled == [IDS[BOS], *encode(made.prompt)]
    reply = fed.pop("reply")
    assert list(fed.values()) == [[encode(part.tokens) for part in stream] for stream in made.streams]
    assert reply == [encode(OPENING), *([IDS[word]] for word in made.reply[:-1])]
    assert result.reply == "".join(made.reply).removesuffix(EOS)
    assert result.answer == (None if stop else made.sheet.answer)


def test_a_worksheet_has_1_to_12_items() -> None:
    assert len(random_worksheet(random.Random(0), 12).items) == 12
    for n in (-1, 13):
        with pytest.raises(ValueError, match="1 to 12"):
            random_worksheet(random.Random(0), n)


def test_the_working_is_as_the_model_card_says() -> None:
    from models.worksheets.items import Item

    sheet = Worksheet((Item("a", 27, (("+", 58),)), Item("b", "a", (("-", 13), ("^", 40)))), (85, 72))
    assert sheet.text == "a=27+58\nb=a-13^40"
    assert sheet.step("a") == "a27+58=158;a=85"
    assert sheet.step("b", fix=True) == "!ba85-13=027;72^40=72;b=72"
    assert sheet.answer == "a85b72"


def test_duplicates_are_counted_once_each_and_fixes_are_none() -> None:
    from models.worksheets.duplicates import duplicates, results_of

    steps = [
        ["Alice", "A:!a27+58=158;a=85", "end"],  # a came with the worksheet, wrong: this is the fix
        ["Bob", "B:ba85-13=027;b=72", "end"],
        ["Alice", "A:c~", "end"],
        ["Bob", "B:ba85-13=027;b=72", "end"],
        ["Alice", "A:b", "budget"],
        ["Alice", "A:a27+58=158;a=85", "end"],
        ["Bob", "B:?a85b72", "answer"],
    ]
    count = results_of("a", steps)
    assert (count.computed, count.twice) == (4, 2)
    run = {"setting": "combined-2", "problem": "1", "replica": 0, "steps": steps}
    records = [json.dumps({**run, "budget": budget}) for budget in (128, 64)]  # the same run twice
    problem = json.dumps({"id": "1", "problem": "a=27+58\nb=a-13\nZ:a27+58=158;a=95", "answer": "a85b72"})
    assert duplicates(records, [problem]) == {"combined-2": count}
