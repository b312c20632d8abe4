"""What a hostile template can do: end in an error, soon."""

from __future__ import annotations

import threading
from time import thread_time

import pytest
from fakes import FakeModel

from hogwild_local.errors import InvalidArgument, ModelError
from hogwild_local.prompts import sandbox
from hogwild_local.prompts.chat_template import ChatTemplate
from hogwild_local.prompts.sandbox import Sandbox

LOOPS = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
DOUBLED = "{% set x = 'ab' %}" + "{% set x = x ~ x %}" * 60
NESTED = "{% set x = ['ab'] %}" + "{% set x = [x, x] %}" * 60
HOSTILE = {
    "repeat": "{{ 'x' * 10**10 }}",
    "repeat a list": "{{ ([0] * 10**10) | length }}",
    "repeat in steps": "{% set n = 10**5 %}{{ ('x' * n) * n }}",
    "power": "{{ 10 ** (10 ** 10) }}",
    "squares": "{% set ns = namespace(x=3) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "constant": "{% if false %}{{ 'x' * 10**10 }}{% endif %}{{ 'a' | center(10**10) }}",
    "loops": LOOPS,
    "loops without output": "{% for a in range(90000) if LOOP %}{% endfor %}".replace("LOOP", "range(90000) | sum"),
    "concat": DOUBLED,
    "add": "{% set x = 'ab' %}" + "{% set x = x + x %}" * 60,
    "block": "{% set x %}ab{% endset %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60,
    "output": "{% set x = 'ab' * 1000 %}{% for i in range(99999) %}{{ x }}{% endfor %}",
    "lists": NESTED + "{{ x }}",
    "lists compared": NESTED + NESTED.replace("x", "y") + "{{ x == y }}",
    "lists added": "{% set x = ['ab'] %}" + "{% set x = [x] + [x] %}" * 60 + "{{ x }}",
    "dicts": "{% set x = {} %}" + "{% set x = {'a': x, 'b': x} %}" * 60 + "{{ x | tojson }}",
    "one text often": "{% set x = ['ab' * 10**6] * 1000 %}{{ x }}",
    "recursion": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "two calls each": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "replace": "{% set x = 'x' * 10**5 %}{{ x.replace('x', x) }}",
    "filter replace": "{% set x = 'x' * 10**5 %}{{ x | replace('x', x) }}",
    "replace nothing": "{% set x = 'x' * 10**5 %}{{ x.replace('', x) }}",
    "join": "{% set x = 'x' * 10**5 %}{{ x.join(x) }}",
    "filter join": "{% set x = 'x' * 10**5 %}{{ x | join(x) }}",
    "join of a lazy list": "{% set x = 'x' * 10**5 %}{{ range(10**5) | map('string') | join(x) }}",
    "indent": "{{ 'a\n' | indent(10**10) }}",
    "json": "{{ [1] | tojson(indent=10**10) }}",
    "method": "{{ 'a'.ljust(10**10) }}",
    "item": "{{ 'a'['ljust'](10**10) }}",
    "filter of map": "{{ ['a'] | map('center', 10**10) | list }}",
    "percent": "{{ '%10000000000d' % 1 }}",
    "percent star": "{{ '%*d' % (10**10, 1) }}",
    "format": "{{ '{:10000000000}'.format(1) }}",
    "nested format": "{{ '{:{}}'.format(1, 10**10) }}",
    "format filter": "{{ '%10000000000d' | format(1) }}",
    "bytes": "{{ (10).to_bytes(10**10) }}",
    "date": "{{ strftime_now('%10000000000Y') }}",
    "range": "{{ range(10**10) | list }}",
    "lipsum": "{{ lipsum(10**7) }}",
    "deep brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep loops": "{% for a in [1] %}" * 300 + "{% endfor %}" * 300,
    "long": "{# #}" * 2**18,
    "split": "{% set x = 'a ' * 10**6 %}{% for i in range(1000) %}{% set y = x.split() %}{% endfor %}",
    "searches": "{% set x = 'a' * 10**7 %}{% for i in range(10**5) %}{% if 'b' in x %}{% endif %}{% endfor %}",
}


def attempt(template: str) -> None:
    ChatTemplate(FakeModel(template)).render("RULES", [{"role": "user", "content": "Hello"}], thinking=True)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_template_that_takes_too_much_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MOST_S", 0.2)
    start = thread_time()
    with pytest.raises((InvalidArgument, ModelError), match="chat template"):
        attempt(HOSTILE[name])
    assert thread_time() - start < 2


def test_the_limits_hold_on_any_thread() -> None:
    errors: list[str] = []

    def work() -> None:
        try:
            attempt(DOUBLED)
        except ModelError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 2


def test_what_one_template_spent_is_not_the_next_ones() -> None:
    environment = Sandbox()
    template = environment.compile_text("{{ 'x' * 10**7 }}")
    for _ in range(3):
        assert len(environment.render_text(template, {})) == 10**7


def test_a_large_document_is_no_large_template() -> None:
    document = "All work and no play makes Jack a dull boy.\n" * 10_000
    template = "{% for m in messages %}{{ '<' + m.role + '>' + m.content.split('</t>')[-1] | trim ~ '\n' }}{% endfor %}"
    text = ChatTemplate(FakeModel(template)).render("R", [{"role": "user", "content": document}], thinking=False).text
    assert document.strip() in text


def test_loops_know_where_they_are() -> None:
    source = (
        "{% for x in items %}{{ loop.index }}/{{ loop.length }}{{ x }}{% if not loop.last %}{{ loop.nextitem }},"
        "{% endif %}{% endfor %}{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}"
        "{% for x in items | map('upper') %}{{ x }}{{ loop.length }}{% else %}none{% endfor %}"
        "{% for x in [] %}{% else %}none{% endfor %}{% for x in missing %}{% else %}none{% endfor %}"
    )
    environment = Sandbox()
    text = environment.render_text(environment.compile_text(source), {"items": ["a", "b"]})
    assert text == "1/2ab,2/2ba1A2B2nonenone"
