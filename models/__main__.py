"""python -m models: writes the model files."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path

from .foreign import FOREIGN, write_foreign
from .large import QWEN3_0_6B, write_large
from .tiny import TINY, write_default, write_tiny
from .transformer import ARCHITECTURES
from .weights import FILE_TYPES

SIZES = [field.name for field in fields(QWEN3_0_6B) if type(getattr(QWEN3_0_6B, field.name)) is int]


def write_all_tiny(options: argparse.Namespace) -> None:
    directory: Path = options.directory
    directory.mkdir(parents=True, exist_ok=True)
    for name in TINY:
        path = directory / f"{name}-{options.type}.gguf"
        write_tiny(path, name, seed=options.seed, file_type=options.type)
    for name in FOREIGN:
        write_foreign(directory / f"{name}.gguf", name, seed=options.seed)


def write_one_large(options: argparse.Namespace) -> None:
    shape = replace(QWEN3_0_6B, **{size: getattr(options, size) for size in ("arch", "tied", *SIZES)})
    write_large(options.path, shape, seed=options.seed, file_type=options.type)


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
    large.add_argument("--type", choices=FILE_TYPES, default="q4_0")
    like = large.add_argument_group("shape", "that of Qwen3-0.6B, unless told otherwise")
    like.add_argument("--arch", choices=ARCHITECTURES, default=QWEN3_0_6B.arch)
    like.add_argument("--tied", action=argparse.BooleanOptionalAction, default=QWEN3_0_6B.tied,
                      help="the output matrix is the embedding (default: %(default)s)")  # fmt: skip
    for size in SIZES:
        like.add_argument(f"--{size.replace('_', '-')}", type=int, default=getattr(QWEN3_0_6B, size),
                          help="default: %(default)s")  # fmt: skip
    large.set_defaults(write=write_one_large)

    default = commands.add_parser("default", help="the model embedded in the package")
    default.add_argument("path", type=Path)
    default.set_defaults(write=lambda options: write_default(options.path))
    return parser


def main(argv: list[str] | None = None) -> None:
    parser = arguments()
    options = parser.parse_args(argv)
    try:
        options.write(options)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
