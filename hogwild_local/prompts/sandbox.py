"""The Jinja environment of all templates: those of models come from files that nobody has read.

Jinja's own sandbox keeps a template from Python's inside. Here it also gets a budget of time and of what it makes:
"x" * 10**10, loops in loops, a macro that calls itself or lists of lists of lists end in an error, on any thread. What
a step makes is counted before it is made where it may be much larger than what it is made from; texts, loops and calls
are counted as they come.
"""

from __future__ import annotations

import functools
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.visitor import NodeTransformer

MOST_S = 2.0  # processor time of one template
# Characters of all texts that it makes, and STEP for each turn of a loop, call or item of a list: so much, and FACTOR
# times what it was given.
MOST_MADE = 2**25
FACTOR = 64
STEP = 16
MOST_BITS = 2**16  # of a number
MOST_SOURCE = 2**20
MOST_WIDTH = 1000  # of a number or text that is padded

# What turns anything into a text: lists are counted with all that is in them.
_TEXT_FILTERS = {"string", "tojson", "join", "trim", "upper", "lower", "capitalize", "title", "replace", "indent"}
_TEXT_FILTERS |= {"escape", "e", "urlencode", "truncate", "wordcount", "format", "list", "sort", "unique"}
_FILTERS = _TEXT_FILTERS | {
    *(
        "abs",
        "attr",
        "count",
        "d",
        "default",
        "dictsort",
        "first",
        "float",
        "groupby",
        "int",
        "items",
        "last",
        "length",
    ),
    *("map", "max", "min", "reject", "rejectattr", "reverse", "safe", "select", "selectattr"),
}
_TEXT_METHODS = {
    *("capitalize", "casefold", "count", "endswith", "find", "format", "index", "isalnum", "isalpha", "isdigit"),
    *("islower", "isnumeric", "isspace", "istitle", "isupper", "join", "lower", "lstrip", "partition", "removeprefix"),
    *("removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines"),
    *("startswith", "strip", "swapcase", "title", "upper"),
}


class TooMuch(jinja2.TemplateRuntimeError):
    """The template takes more time or room than any prompt needs."""


class _Budget(threading.local):
    """What the template, or templates, that this thread renders may still make."""

    left: int = MOST_MADE
    end: float = float("inf")

    @contextmanager
    def limited(self, given: Any = "") -> Iterator[None]:
        """Sets the limits, unless they are set already. given: what the template is made from."""
        if self.end < float("inf"):
            yield
            return
        before = self.left, self.end
        self.left, self.end = sys.maxsize, float("inf")
        self.left, self.end = MOST_MADE + FACTOR * _weight(given), time.thread_time() + MOST_S
        try:
            yield
        finally:
            self.left, self.end = before

    def spend(self, n: int = STEP) -> None:
        self.left -= n
        if self.left < 0 or time.thread_time() > self.end:
            raise TooMuch("it makes too much text, or takes too long")


budget = _Budget()


def _weight(value: Any, with_texts: bool = True) -> int:
    """The size of a value with all that is in it, as often as it is in it; it is spent while it is counted."""
    weight, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        size = STEP
        if isinstance(item, str | bytes):
            size = len(item) if with_texts else 1
        elif isinstance(item, Mapping):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += item
        elif isinstance(item, int):
            size = item.bit_length() // 3 + 1
        weight += size
        if waiting:
            budget.spend(size)
    budget.spend(0)
    return weight


def _spend_result(value: Any) -> Any:
    if isinstance(value, str):
        budget.spend(len(value))
    elif isinstance(value, list | tuple | dict):
        _weight(value, with_texts=False)
    return value


def _spend_replace(text: str, old: str, new: str, count: int = -1) -> None:
    n = text.count(old) if count < 0 else min(count, text.count(old))
    budget.spend(n * len(new))


def _spend_padding(form: str) -> None:
    """Widths in formats: %1000d, %*d, {:>1000}."""
    if re.search(r"\d{4}", form) or "*" in form:
        raise TooMuch(f"a width of more than {MOST_WIDTH - 1} in the format {form[:40]!r}")


def _check_bits(n: int) -> None:
    if n > MOST_BITS:
        raise TooMuch(f"a number of more than {MOST_BITS} bits")


class _Formatter(SandboxedFormatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        _spend_padding(format_spec)
        budget.spend(_weight(value))
        return str(super().format_field(value, format_spec))


class _Items:
    """What a loop goes over; each turn is counted."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items if hasattr(items, "__len__") else list(items)

    def __len__(self) -> int:
        return len(self._items)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            budget.spend()
            yield item


def _joined(pieces: Iterable[Any]) -> str:
    texts = []
    for piece in pieces:
        text = _to_text(piece)
        budget.spend(len(text) + 1)
        texts.append(text)
    return "".join(texts)


def _to_text(value: Any) -> str:
    if not isinstance(value, str | jinja2.Undefined):
        _weight(value)
    return str(value)


class _Counting(NodeTransformer):
    """Puts what is to be counted through the filters _each, _built and _joined."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _through("_each", node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _through("_joined", nodes.Tuple(node.nodes, "load", lineno=node.lineno))

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _through("_built", node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return _through("_built", node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _through("_built", node) if node.ctx == "load" else node


def _through(name: str, node: Any) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class Nothing(jinja2.Undefined):
    """What a template was not told renders as nothing, also where it is joined to a text."""

    def __add__(self, other: Any) -> Any:
        return other

    __radd__ = __add__


class _GenerationTag(jinja2.ext.Extension):
    """{% generation %} marks training targets in some templates; for rendering it is nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        parser.stream.skip(1)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """Undefined names render as nothing, as templates expect, unless undefined says otherwise."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])
    concat = staticmethod(_joined)

    def __init__(self, undefined: type[jinja2.Undefined] = Nothing) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=undefined,
            optimized=False,  # constants are made while a template is compiled, uncounted
            finalize=_spend_output,
            extensions=[_GenerationTag, "jinja2.ext.loopcontrols"],
        )
        self.filters["tojson"] = _to_json
        self.filters = {name: _counted(name, self.filters[name]) for name in _FILTERS}
        self.filters |= {"_each": _Items, "_built": _spend_result, "_joined": _joined}
        known = ("range", "dict", "namespace", "cycler", "joiner")
        self.globals = {name: self.globals[name] for name in known} | {"raise_exception": _raise_exception}

    def compile_text(self, source: str) -> jinja2.Template:
        """Raises jinja2.TemplateError, also for what is too long or nested too deep to be compiled."""
        if len(source) > MOST_SOURCE:
            raise TooMuch(f"a template of more than {MOST_SOURCE} characters")
        with budget.limited(), _faults_named():
            return self.from_string(source)

    def render_text(self, template: jinja2.Template, values: Mapping[str, Any]) -> str:
        """Raises jinja2.TemplateError for whatever is wrong in the template."""
        with budget.limited(values), _faults_named():
            return template.render(values)

    def _generate(self, source: nodes.Template, *args: Any, **options: Any) -> str:
        return super()._generate(_Counting().visit(source), *args, **options)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, int | float | complex | bytes) or (isinstance(obj, str) and attr not in _TEXT_METHODS):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        text = getattr(value, "__self__", None)
        if super().wrap_str_format(value) is None:
            return None
        return lambda *args, **named: _Formatter(self).vformat(str(text), args, named)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "*" and isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() + right.bit_length())
        elif operator == "*":
            for value, times in ((left, right), (right, left)):
                if isinstance(times, int):
                    budget.spend((_weight(value) if isinstance(value, str | list | tuple) else 1) * max(1, times))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() * max(1, right))
        elif operator == "%" and isinstance(left, str):
            _spend_padding(left)
            _weight(right)
        return _spend_result(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **named: Any) -> Any:
        budget.spend()
        text, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(text, str):
            if name == "join" and args:
                args = (list(_Items(args[0])), *args[1:])
                budget.spend(len(text) * len(args[0]))
            elif name == "replace":
                _spend_replace(text, *args)
            elif name in ("split", "rsplit", "splitlines"):
                separator = args[0] if args and isinstance(args[0], str) else ""
                budget.spend(STEP * (text.count(separator) if separator else len(text) // 2))
        return _spend_result(super().call(__context, __obj, *args, **named))


def _counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose call and result are counted."""

    @functools.wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        budget.spend()
        # Some take the environment or a context first.
        at = int(bool(args) and isinstance(args[0], jinja2.Environment | Context | nodes.EvalContext))
        value, *others = args[at:] if len(args) > at else (None,)
        numbers = [number for number in (*others, *named.values()) if isinstance(number, int)]
        if name in _TEXT_FILTERS:
            if name == "join" and not isinstance(value, str | list | tuple | dict):
                value = list(_Items(value))
                args = (*args[:at], value, *args[at + 1 :])
            budget.spend(_weight(value) if isinstance(value, str | list | tuple | dict) else 0)
            if max(map(abs, numbers), default=0) >= MOST_WIDTH and name in ("indent", "tojson"):
                raise TooMuch(f"the filter {name} with a width of {max(numbers)}")
        if name == "replace" and all(isinstance(text, str) for text in others[:2]):
            _spend_replace(str(value), *others)
        elif name == "indent":
            width = next((len(text) for text in (*others, *named.values()) if isinstance(text, str)), 0)
            budget.spend(str(value).count("\n") * max(width, *numbers, 0, 0))
        elif name == "join":
            glue = next((len(text) for text in (*others, *named.values()) if isinstance(text, str)), 0)
            budget.spend(glue * len(value))
        elif name == "format":
            _spend_padding(str(value))
        return _spend_result(function(*args, **named))

    return call


def _spend_output(value: Any) -> Any:
    return _to_text(value) if not isinstance(value, jinja2.Undefined) else value


@contextmanager
def _faults_named() -> Iterator[None]:
    """Whatever a template does wrong is its fault."""
    try:
        yield
    except jinja2.TemplateError:
        raise
    except RecursionError as error:
        raise TooMuch("it is nested too deep, or calls itself for ever") from error
    except MemoryError as error:
        raise TooMuch("it takes more memory than there is") from error
    except Exception as error:  # Python's own, of wrong types and values in the template
        raise jinja2.TemplateRuntimeError(str(error) or type(error).__name__) from error


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)
