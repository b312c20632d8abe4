"""python -m models: writes the model files, trains the one in the package, and writes worksheets."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

from .foreign import FOREIGN, write_foreign
from .large import LARGE_TYPES, QWEN3_0_6B, SHAPES, write_large
from .tiny import HYBRIDS, TINY, write_tiny
from .transformer import ARCHITECTURES
from .weights import FILE_TYPES
from .worksheets import MAX_ITEMS, MAX_WORKERS, Worksheet, random_worksheet

SIZES = [field.name for field in fields(QWEN3_0_6B) if type(getattr(QWEN3_0_6B, field.name)) is int]


def write_all_tiny(options: argparse.Namespace) -> None:
    directory: Path = options.directory
    directory.mkdir(parents=True, exist_ok=True)
    for name in [*TINY, *HYBRIDS]:
        path = directory / f"{name}-{options.type}.gguf"
        write_tiny(path, name, seed=options.seed, file_type=options.type)
    for name in FOREIGN:
        write_foreign(directory / f"{name}.gguf", name, seed=options.seed)


def write_one_large(options: argparse.Namespace) -> None:
    given = {size: getattr(options, size) for size in ("arch", "tied", *SIZES)}
    shape = SHAPES[options.like]
    try:
        shape = replace(shape, **{size: value for size, value in given.items() if value is not None})
    except TypeError as error:
        raise ValueError(f"{options.like} has no such size: {error}") from None
    write_large(options.path, shape, seed=options.seed, file_type=options.type)


def random_worksheets(options: argparse.Namespace) -> Iterator[Worksheet]:
    """The seed is a text of its own kind: no lesson of the training has it."""
    rng = random.Random(f"worksheets/{options.seed}")
    for _ in range(options.count):
        yield random_worksheet(rng, options.items)


def write_worksheets(options: argparse.Namespace) -> None:
    """Lines for `hogwild eval`."""
    for number, sheet in enumerate(random_worksheets(options), 1):
        print(json.dumps({"id": f"{options.seed}-{number}", "problem": sheet.text, "answer": sheet.answer}))


def train_worksheets(options: argparse.Namespace) -> None:
    from .worksheets.course import Course
    from .worksheets.train import Training, train

    processes = options.processes if options.device == "cpu" else 1
    course = Course(seed=options.seed, processes=processes)
    train(options.directory, Training(course, device=options.device))


def export_worksheets(options: argparse.Namespace) -> None:
    from .worksheets.export import export, load_checkpoint

    export(load_checkpoint(options.checkpoint), options.path, options.type)


def count_duplicates(options: argparse.Namespace) -> None:
    from .worksheets.duplicates import duplicates

    with options.records.open() as records, options.problems.open() as problems:
        for setting, count in duplicates(records, problems).items():
            print(f"{setting:16} {count.computed:6} items computed, {count.twice:5} of them twice: {count.part:.2%}")


def count_replies(options: argparse.Namespace) -> None:
    from hogwild_local import Hogwild
    from hogwild_local.engine.default_model import default_model_path

    from .worksheets.replies import replies

    sheets = list(random_worksheets(options))
    with Hogwild(options.model or default_model_path()) as hogwild:
        for workers in range(1, MAX_WORKERS + 1):
            said = list(replies(hogwild, sheets, workers))
            for answered, when in ((True, "after the answer"), (False, "after a budget")):
                of = [one.reply == one.wanted for one in said if one.answered == answered]
                print(f"{workers} workers, {when}: {sum(of)} of {len(of)} replies say what was written")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models", description=__doc__)
    commands = parser.add_subparsers(required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--seed", type=int, default=0)

    tiny = commands.add_parser("tiny", parents=[common], help="the tiny models that tests run on")
    tiny.add_argument("directory", type=Path)
    tiny.add_argument("--type", choices=FILE_TYPES, default="f32")
    tiny.set_defaults(write=write_all_tiny)

    large = commands.add_parser("large", parents=[common], help="a model to measure speed on")
    large.add_argument("path", type=Path)
    large.add_argument("--type", choices=LARGE_TYPES, default="q4_0")
    like = large.add_argument_group("shape", "that of a Qwen model, unless told otherwise")
    like.add_argument("--like", choices=SHAPES, default="0.6b", help="default: %(default)s")
    like.add_argument("--arch", choices=ARCHITECTURES)
    like.add_argument("--tied", action=argparse.BooleanOptionalAction, default=None,
                      help="the output matrix is the embedding")  # fmt: skip
    for size in SIZES:
        like.add_argument(f"--{size.replace('_', '-')}", type=int)
    large.set_defaults(write=write_one_large)
    add_worksheets(commands, common)
    return parser


def add_worksheets(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    some = argparse.ArgumentParser(add_help=False, parents=[common])
    some.add_argument("count", type=int)
    some.add_argument("--items", type=int, choices=range(1, MAX_ITEMS + 1), help="default: 2 to 12")
    sheets = commands.add_parser("worksheets", parents=[some], help="worksheets and answers, for hogwild eval")
    sheets.set_defaults(write=write_worksheets)

    replies = commands.add_parser("replies", parents=[some], help="how often the reply says what the workers wrote")
    replies.add_argument("--model", type=Path, help="default: the one in the package")
    replies.set_defaults(write=count_replies)

    twice = commands.add_parser("duplicates", help="what was computed twice, of hogwild eval --transcripts")
    twice.add_argument("records", type=Path)
    twice.add_argument("problems", type=Path)
    twice.set_defaults(write=count_duplicates)

    train = commands.add_parser("train", help="the worksheet model; needs the extra [train]")
    train.add_argument("directory", type=Path, help="for checkpoints: the same command goes on from the last one")
    train.add_argument("--seed", type=int, default=1)
    train.add_argument("--processes", type=int, default=2, help="one a core; default: %(default)s")
    train.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    train.set_defaults(write=train_worksheets)

    export = commands.add_parser("export", help="a checkpoint as GGUF; needs the extra [train]")
    export.add_argument("checkpoint", type=Path)
    export.add_argument("path", type=Path)
    export.add_argument("--type", choices=("f32", "f16", "q8_0"), default="q8_0")
    export.set_defaults(write=export_worksheets)


def main(argv: list[str] | None = None) -> None:
    parser = arguments()
    options = parser.parse_args(argv)
    try:
        options.write(options)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
