"""hogwild eval: accuracy against budget, of several settings on a file of problems, in a directory that remembers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..engine.protocols import Engine
from ..errors import HogwildError
from ..evaluation.answers import CHECKERS
from ..evaluation.plan import Plan
from ..evaluation.settings import BASELINES
from ..hogwild import Hogwild
from ..options import EngineOptions, RunOptions, SamplingParams, default_of
from ..prompts.model_defaults import ModelDefaults
from ..prompts.style import PromptStyle
from .grouped import Command, option
from .options import (
    COUNT,
    LAYOUTS,
    Numbers,
    engine_of,
    given,
    hogwild_options,
    load,
    model_path,
    run_options,
    sampling,
    sampling_options,
)
from .terminal import note, say

if TYPE_CHECKING:
    from ..evaluation import Journal, Problem, Record, Row

EPILOG = "Each option can be given as an environment variable: HOGWILD_EVAL_BUDGETS is --budgets."
USUAL_N_CTX = 8192
"""Tokens of the cache unless told otherwise: results must not depend on how much memory this machine has left."""
FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("eval", cls=Command, epilog=EPILOG)
@click.argument("problems", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@option(
    "Workers", "-w", "--workers", type=Numbers(), default=Plan.workers,
    help="Numbers of workers to compare; 1 is the single worker.",
)  # fmt: skip
@option(
    "Workers", "--layout", type=LAYOUTS, multiple=True, default=[default_of(RunOptions, "layout")],
    help="What workers see of each other; may be repeated.",
)  # fmt: skip
@run_options
@hogwild_options
@sampling_options
@option(
    "Sampling", "--independent-temp", type=float,
    help="Temperature of independent workers. Without it that of the others.",
)  # fmt: skip
@option(
    "Evaluation", "-n", "--budgets", type=Numbers(), default=Plan.budgets,
    help="Budgets of forward passes, each a point of the plot.",
)  # fmt: skip
@option(
    "Evaluation", "--baseline", type=click.Choice(BASELINES), multiple=True,
    help="As many workers who share nothing, or who see finished steps only; may be repeated.",
)  # fmt: skip
@option(
    "Evaluation", "--check", type=click.Choice(tuple(CHECKERS)), default=Plan.check,
    help="What is a right answer: the same text, an equal number, or an equal term.",
)  # fmt: skip
@option("Evaluation", "--limit", type=COUNT, help="Use the first so many problems. Without it all.")
@option("Evaluation", "--seed", type=int, default=Plan.seed, help="A number from which all runs derive theirs.")
@option(
    "Output", "-o", "--out", type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the results. Without it NAME-eval, here.",
)  # fmt: skip
@option("Output", "--plot", "plot_file", type=FILE, help="Picture. Without it accuracy.png, if matplotlib is there.")
@option("Output", "--transcripts", is_flag=True, help="Keep what was written in the records.")
@click.pass_context
def evaluate(
    ctx: click.Context, /, problems: Path, limit: int | None, out: Path | None, plot_file: Path | None, **options: Any
) -> None:
    """Measure how often workers find the right answers of PROBLEMS, and in how many passes.

    PROBLEMS is a file with lines such as {"problem": "1+1?", "answer": "2"}. All results go to a directory; the same
    command goes on where it was stopped, and one with more settings, budgets or problems adds what is missing.
    """
    from .. import evaluation
    from ..evaluation.plan import check_plan, recorded_date, save_plan
    from ..evaluation.plot import check_plot
    from ..evaluation.runner import check_truths

    if plot_file is not None:
        check_plot(plot_file)
    engine = engine_of(ctx, options)
    path = model_path(engine, options)
    defaults, n_ctx = _of_file(engine, path, options["trust"])
    options["prompts"] = PromptStyle.load(options["prompts"]) if options["prompts"] else defaults.prompts
    out = out or Path(f"{problems.stem}-eval")
    options["date"] = options["date"] or recorded_date(out)  # a resume the next day is the same evaluation
    plan, every = _plan(options, defaults.sampling), evaluation.read_problems(problems)
    chosen = every[:limit]
    check_truths(chosen, plan)
    identity = _identity(path, every, plan, options)
    with _files():
        check_plan(out, identity)
        out.mkdir(parents=True, exist_ok=True)
        with evaluation.Journal(out / "records.jsonl") as journal:
            save_plan(out, identity, plan.extent())
            _run(journal, chosen, plan, lambda: load(engine, path, options | {"ctx": options["ctx"] or n_ctx}))
            rows = evaluation.summarize(journal.records, chosen, plan)
        _write(out, plot_file, rows, f"{problems.stem}: {len(chosen)} problems")
    say(evaluation.table(rows))


def _run(journal: Journal, problems: Sequence[Problem], plan: Plan, load_model: Callable[[], Hogwild]) -> None:
    """Makes the runs that are missing; the model is loaded only if there are any."""
    from ..evaluation import evaluate
    from ..evaluation.runner import cells

    budgets_of = [journal.of((problem.id, arm.name, replica)) for problem, arm, replica in cells(problems, plan)]
    missing = [budget for known in budgets_of for budget in plan.budgets if budget not in known]
    n_wanted = len(budgets_of) * len(plan.budgets)
    if len(missing) < n_wanted:
        note(f"hogwild: {n_wanted - len(missing)} of {n_wanted} records are there already")
    if not missing:
        return
    try:
        with load_model() as hogwild, _progress(sum(missing), len(missing)) as show:
            for record in evaluate(hogwild, problems, plan, journal):
                show(record)
    except KeyboardInterrupt:
        note("hogwild: stopped; the same command goes on from here")
        raise


def _of_file(engine: Engine, path: Path, trust: bool) -> tuple[ModelDefaults, int]:
    """What comes with the model, and the usual size of its cache, without its weights: they are loaded only if there is
    something to run."""
    model = engine.model(path, vocab_only=True, trust=trust)
    try:
        known = model.metadata
        trained = known.get(f"{known.get('general.architecture')}.context_length", "")
        n_ctx = min(USUAL_N_CTX, int(trained)) if trained.isdigit() and int(trained) else USUAL_N_CTX
        return ModelDefaults.of(known), n_ctx
    finally:
        model.close()


def _plan(options: dict[str, Any], own: SamplingParams) -> Plan:
    made = {
        "layouts": options["layout"],
        "baselines": options["baseline"],
        "sampling": sampling(options, own),
        "finisher_tokens": options["finisher_tokens"] if options["finisher"] else 0,
    }
    same = {field.name: options[field.name] for field in fields(Plan) if field.name not in made}
    return Plan(**same, **made)


def _identity(path: Path, problems: Sequence[Problem], plan: Plan, options: dict[str, Any]) -> dict[str, Any]:
    """What the results depend on. Threads and devices are not in it: they are to change the speed only."""
    from ..evaluation.plan import file_identity, style_identity
    from ..evaluation.problems import digest

    engine = given(EngineOptions, options)
    engine["n_ctx"] = engine["n_ctx"] or USUAL_N_CTX
    # By the names that directories of earlier versions have.
    names = {"ctx": "n_ctx", "batch": "n_batch", "type_k": "type_k", "type_v": "type_v", "attention": "attention"}
    adapters = {"lora": engine["lora"], "control_vector": engine["control_vectors"]}
    return {
        "version": version("hogwild-local"),
        "model": file_identity(path),
        "problems": f"{len(problems)}, sha256 {digest(problems)}",
        "prompts": style_identity(options["prompts"]),
        **{key: engine[name] for key, name in names.items()},
        **{key: [[file_identity(file), scale] for file, scale in pairs] for key, pairs in adapters.items()},
        **plan.identity(),
    }


def _write(out: Path, plot_file: Path | None, rows: Sequence[Row], title: str) -> None:
    from ..evaluation import table, write_csv
    from ..evaluation.plot import can_plot, plot

    write_csv(out / "summary.csv", rows)
    (out / "summary.md").write_text(table(rows) + "\n", encoding="utf-8")
    if plot_file is not None or can_plot():
        plot(plot_file or out / "accuracy.png", rows, title)


@contextlib.contextmanager
def _files() -> Iterator[None]:
    """A full disk, or a directory that may not be written, is one line as well."""
    try:
        yield
    except OSError as error:
        raise HogwildError(str(error)) from error


@contextlib.contextmanager
def _progress(n_passes: int, n_records: int) -> Iterator[Callable[[Record], object]]:
    """A bar with the time left, where somebody is looking. It counts passes: a large budget takes longer."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda record: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    # Of the last hour: a run can take minutes.
    with Progress(*columns, console=console, speed_estimate_period=3600) as progress:
        task = progress.add_task(f"0 of {n_records} records", total=n_passes)
        n_done = 0

        def show(record: Record) -> None:
            nonlocal n_done
            n_done += 1
            progress.update(task, advance=record.budget, description=f"{n_done} of {n_records} records")

        yield show
