"""One option: what is known of it beside its type and default, and how a class of options is checked and taken.

Plain data: importable without the compiled engine.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, cast, get_args

from ..checks import INT32_MAX, flag, number, one_of, whole

O = TypeVar("O")  # noqa: E741  options
P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Option:
    """What is known of a field beside its type and default: a sentence of help, and what it may be. A field whose
    default is None may be None."""

    help: str
    kind: Literal["whole", "number", "flag", "choice", "other"]
    least: int = 0
    most: int = INT32_MAX
    choices: tuple[str, ...] = ()

    def checked(self, value: object, name: str) -> object:
        """The value as it is kept. Raises InvalidArgument, which names it."""
        match self.kind:
            case "whole":
                return whole(value, name, self.least, self.most)
            case "number":
                return number(value, name)
            case "flag":
                return flag(value, name)
            case "choice":
                return one_of(value, name, self.choices)
            case "other":
                return value


class Options:
    """Base of the classes below: checks each field when an object is made."""

    def __post_init__(self) -> None:
        for name, option in options_of(type(self)).items():
            value = getattr(self, name)
            if value is not None or default_of(type(self), name) is not None:
                object.__setattr__(self, name, option.checked(value, name))


def options_of(kind: type[Options]) -> dict[str, Option]:
    """The options of a class, by name."""
    return {f.name: f.metadata["option"] for f in fields(kind) if "option" in f.metadata}  # type: ignore[arg-type]


def default_of(kind: type[Options], name: str) -> Any:
    """The default of one option."""
    return next(f.default for f in fields(kind) if f.name == name)  # type: ignore[arg-type]


def a_whole(least: int, help: str, most: int = INT32_MAX) -> dict[str, Option]:
    return {"option": Option(help, "whole", least, most)}


def a_number(help: str) -> dict[str, Option]:
    return {"option": Option(help, "number")}


def a_flag(help: str) -> dict[str, Option]:
    return {"option": Option(help, "flag")}


def a_choice(choices: object, help: str) -> dict[str, Option]:
    return {"option": Option(help, "choice", choices=get_args(choices))}


def any_other(help: str, choices: object = None) -> dict[str, Option]:
    """Checked elsewhere; choices: what the command line offers of it."""
    return {"option": Option(help, "other", choices=get_args(choices))}


def takes(options: Callable[P, O]) -> Callable[[Callable[[S, T, O], R]], Callable[Concatenate[S, T, P], R]]:
    """Lets a method that takes (self, what, an object of options) be called with the options as keywords instead. Type
    checkers and help() see each of them, with its type and default, and the list is written once."""

    def decorate(method: Callable[[S, T, O], R]) -> Callable[Concatenate[S, T, P], R]:
        make: Callable[..., O] = options
        own = list(inspect.signature(method).parameters.values())[:2]
        signature = inspect.Signature([*own, *inspect.signature(options).parameters.values()])

        @functools.wraps(method)
        def call(*given: Any, **named: Any) -> R:
            bound = signature.bind(*given, **named)
            this, what = bound.args
            return method(this, what, make(**bound.kwargs))

        call.__signature__ = signature  # type: ignore[attr-defined]
        return cast("Callable[Concatenate[S, T, P], R]", call)

    return decorate
