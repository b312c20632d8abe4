"""What a model writes, as HTML: safe whatever it is, and no text holds the server."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hogwild_local.server.rendering import MOST_CHARACTERS, MOST_FORMULA, all_rendered, rendered

HOSTILE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (15, 15))
from hogwild_local.server.rendering import MOST_CHARACTERS, all_rendered
text = (sys.argv[1].encode().decode("unicode_escape") * MOST_CHARACTERS)[:MOST_CHARACTERS]
for each in (text, f"${text[2:]}$"):
    assert all_rendered([each])[0].startswith("<")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits there")
@pytest.mark.parametrize(
    "unit",
    [
        r"\\(", r"\\[", "$$a", "$a ", "`a ", "```a\\n", "~~~\\n", "*a **a ", "a**b", "[", "[a](b", "[[]()", "> ", "- ",
        "1. a\\n", "|a", "|a|b\\n|-|-\\n|\\n", "<a ", "&amp", "a\\n", "# a\\n",
        r"$\\text{a", r"\\text{a", r"\\frac{", "{", "a^",
    ],
)  # fmt: skip
def test_no_text_takes_long_whatever_is_in_it(unit: str) -> None:
    done = subprocess.run([sys.executable, "-P", "-c", HOSTILE, unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # it is killed after ten times what the slowest of these takes


def test_what_is_beyond_the_size_is_shown_as_it_is() -> None:
    long = "<b>*a* " * (MOST_CHARACTERS // 7)
    first, second = all_rendered([long, "<i>**b**"])
    assert first.count("<em>") == long.count("*a*")
    assert second == "<pre>&lt;i&gt;**b**</pre>"


def test_formulas_are_whole_up_to_a_size() -> None:
    assert "<math" in rendered(f"${'a' * MOST_FORMULA}$")
    assert "<math" not in rendered(f"${'a' * (MOST_FORMULA + 1)}$")
    for text in (r"\(a\)", r"\[a \\[2pt] b\]", r"\(x \\(y\)", "$$a$$", r"\(b \(a\)"):
        assert rendered(text).count("<math") == 1, text
    assert "<math" not in rendered(r"\(a \[b")
