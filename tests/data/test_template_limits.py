"""Chat templates are strangers' programs: what they do wrong is one line, and soon."""

import copy
import threading
import time

import pytest
from tiny_chat_model import tiny_chat_tokenizer

from emergent_alignment.data import template_limits
from emergent_alignment.data.template_limits import render
from emergent_alignment.errors import UserError

MESSAGES = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yo."}]
DOUBLING = (
    "{% set ns = namespace(x='x') %}{% for a in range(99) %}{% set ns.x = ns.x ~ ns.x %}"
    "{% endfor %}{{ ns.x }}"
)
NESTED = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def templated(template):
    own = copy.copy(tiny_chat_tokenizer())
    own.chat_template = template
    return own


def test_a_rendering_is_the_tokenizer_s_own():
    own = tiny_chat_tokenizer()
    options = {"add_generation_prompt": True, "enable_thinking": False}
    expected = own.apply_chat_template(MESSAGES, tokenize=False, **options)
    assert render(own, MESSAGES, **options) == expected


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (NESTED, "does not end within"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "it has no end: RecursionError"),
        ("{% for a in range(9999) %}{{ 'x' * 999 }}{% endfor %}", "letters of 8"),
        ("{{ 'x' * 10 ** 15 }}", "it has no end: MemoryError"),
        ("{{ range(10 ** 9) }}", "OverflowError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ 'a' + 1 }}", "TypeError"),
        ("{{ messages[9].content }}", "has no element 9"),
        ("{{ raise_exception('No\nsystem turns') }}", "No system turns"),
        ("{% for %}", "Expected an expression"),
        ("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "RecursionError"),
    ],
)
def test_what_a_template_does_wrong_is_one_line(monkeypatch, template, said):
    monkeypatch.setattr(template_limits, "SECONDS", 0.3)
    begun = time.monotonic()
    with pytest.raises(UserError) as refused:
        render(templated(template), MESSAGES)
    assert said in str(refused.value) and "'Yo.'" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert time.monotonic() - begun < 5
    assert render(tiny_chat_tokenizer(), MESSAGES), "the next one is not disturbed"


def test_a_template_that_fills_the_memory_is_stopped_before_its_time(monkeypatch):
    monkeypatch.setattr(template_limits, "GROWTH_BYTES", 2**26)
    with pytest.raises(UserError, match="fills the memory"):
        render(templated(DOUBLING), MESSAGES)


def test_a_rendering_that_is_stopped_stops_no_other(monkeypatch):
    monkeypatch.setattr(template_limits, "SECONDS", 0.3)
    done, stop = [], threading.Event()

    def others():
        while not stop.is_set():
            done.append(render(tiny_chat_tokenizer(), MESSAGES))

    threads = [threading.Thread(target=others) for _ in range(2)]
    for thread in threads:
        thread.start()
    with pytest.raises(UserError, match="does not end"):
        render(templated(NESTED), MESSAGES)
    stop.set()
    for thread in threads:
        thread.join()
    assert done and len(set(done)) == 1
