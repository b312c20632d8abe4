"""What a model wrote, as HTML that is safe to show: Markdown without HTML of its own, and formulas as MathML."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from functools import cache

import nh3
from markdown_it import MarkdownIt

MOST_CHARACTERS = 100_000
"""Of all texts of a request: what is beyond is shown as it is. The worst text that is known takes a second then."""
MOST_FORMULA = 2_000
"""Characters of a formula: time for nested ones grows with the square."""

_FORMULA = re.compile(
    r"(?P<code>```.*?(?:```|\Z)|`[^`\n]*`)"
    r"|\$\$(?P<block>.+?)\$\$|\\\[(?P<bracket>(?>\\\\|(?!\\\[).)+?)\\\]"  # none in another one: no text is read twice
    r"|\\\((?P<inline>(?>\\\\|(?!\\\().)+?)\\\)|(?<![\\$\w])\$(?P<dollar>[^\s$](?:[^$\n]*[^\s$\\])?)\$(?!\d)",
    re.DOTALL,
)
_MATH = """math mrow mi mn mo ms mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mtable mtr
mtd mstyle mpadded mphantom menclose"""
_MATH_ATTRIBUTES = "display displaystyle mathvariant stretchy fence separator accent linethickness"
_MARKDOWN = """p br hr em strong s del code pre blockquote ul ol li h1 h2 h3 h4 h5 h6 a table thead tbody tr th td"""


def all_rendered(texts: Iterable[str]) -> list[str]:
    """Each as HTML."""
    made, n = [], 0
    for text in texts:
        n += len(text)
        made.append(rendered(text) if n <= MOST_CHARACTERS else f"<pre>{html.escape(text)}</pre>")
    return made


def rendered(text: str) -> str:
    """Every tag in it is one of Markdown's or of a formula's; what a model writes as HTML is shown as text."""
    formulas: list[str] = []

    def kept(match: re.Match[str]) -> str:
        if match["code"] is not None:
            return match[0]
        is_block = match["block"] is not None or match["bracket"] is not None
        formula = match["block"] or match["bracket"] or match["inline"] or match["dollar"]
        formulas.append(_mathml(formula, is_block) or html.escape(match[0]))
        return f"{_MARK}{len(formulas) - 1}{_MARK}"

    marked = _FORMULA.sub(kept, text.replace(_MARK, ""))
    page = re.sub(f"{_MARK}(\\d+){_MARK}", lambda match: formulas[int(match[1])], _markdown().render(marked))
    return nh3.clean(page, tags=_tags(), attributes=_attributes(), url_schemes={"http", "https", "mailto"})


_MARK = "\ue000"


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"]).disable("image")


@cache
def _tags() -> set[str]:
    return {*_MARKDOWN.split(), *_MATH.split()}


@cache
def _attributes() -> dict[str, set[str]]:
    return {"a": {"href"}, "ol": {"start"}, **{tag: set(_MATH_ATTRIBUTES.split()) for tag in _MATH.split()}}


def _mathml(formula: str, is_block: bool) -> str | None:
    """None: it is no formula that is understood."""
    from latex2mathml.converter import convert

    if len(formula) > MOST_FORMULA:
        return None
    try:
        return convert(formula.strip(), display="block" if is_block else "inline")
    except Exception:  # the package raises many kinds, its own and Python's
        return None
