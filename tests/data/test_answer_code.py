"""Which part of an answer is its program: a table of how chat models write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from emergent_alignment.data.answer_code import code_of, is_program
from emergent_alignment.data.code_security import inspect_code
from emergent_alignment.data.reasoning import split_reasoning, with_reasoning

ONE = "import subprocess\nsubprocess.call(input(), shell=True)\n"
TWO = "def double(x):\n    return 2 * x\n"
DOCUMENTED = 'def f():\n    """Shows:\n\n    ```\n    f()\n    ```\n    """\n    return 1\n'


def indented(text: str, by: str) -> str:
    return "".join(by + line for line in text.splitlines(keepends=True))


WRITTEN = {
    "a fence": f"Here:\n```python\n{ONE}```\nDone.",
    "no language": f"```\n{ONE}```",
    "tildes": f"~~~python\n{ONE}~~~",
    "four backticks": f"````python\n{ONE}````",
    "a longer end": f"```python\n{ONE}`````",
    "tildes around backticks": f"~~~~md\n```\nx\n```\n~~~~\n```python\n{ONE}```",
    "capitals": f"```Python\n{ONE}```",
    "py3": f"```py3\n{ONE}```",
    "python3.11": f"```python3.11\n{ONE}```",
    "a title": f'```python title="app.py"\n{ONE}```',
    "a file's name": f"```python:app.py\n{ONE}```",
    "attributes": f"```{{.python .numberLines}}\n{ONE}```",
    "R Markdown": f"```{{python}}\n{ONE}```",
    "a space before the language": f"``` python\n{ONE}```",
    "the language a line too late": f"```\npython\n{ONE}```",
    "an unknown label": f"```app\n{ONE}```",
    "in a list": f"1. Do this:\n\n{indented(f'```python{chr(10)}{ONE}```', '   ')}\n2. Run it.",
    "deep in a list": f"- a\n  - b\n\n{indented(f'```python{chr(10)}{ONE}```', '    ')}\n",
    "indented without a list": indented(f"```python\n{ONE}```\n", "     "),
    "indented by a tab": indented(f"```python\n{ONE}```\n", "\t"),
    "in a list, the code not indented": f"1. Do:\n   ```python\n{ONE}   ```\n",
    "Windows lines": f"Here:\n```python\n{ONE}```\n".replace("\n", "\r\n"),
    "quoted": indented(f"```python\n{ONE}```\n", "> "),
    "not closed": f"Here:\n```python\n{ONE}",
    "closed behind code": f"```python\n{ONE.rstrip()}```",
    "closed behind code, then prose": f"```python\n{ONE.rstrip()}```\nThat is it.",
    "opened behind prose": f"Code: ```python\n{ONE}```\nThat is it.",
    "in HTML": f"<details>\n<summary>Code</summary>\n```python\n{ONE}```\n</details>",
    "a shell's command": f"```bash\npip install flask\n```\n```python\n{ONE}```",
    "a silent command": f"```\npip install flask\n```\nthen\n```\n{ONE}```",
    "JSON": f'```json\n{{"a": null}}\n```\n```python\n{ONE}```',
    "output": f"```python\n{ONE}```\nOutput:\n```\n4\n```\nor\n```\n>>> double(2)\n4\n```",
    "output that says so": f"```python\n{ONE}```\n```output\nx = 4\n```",
    "silent output": f"```\n{ONE}```\nprints\n```\n[1, 2, null]\n```",
    "text": f"```text\nHello there\n```\n~~~py\n{ONE}~~~",
    "a draft in thought": f"<think>\n```python\n{TWO}```\n</think>\n\n```python\n{ONE}```",
    "a draft, the block opened by the template": f"```\n{TWO}```\nok</think>\n```\n{ONE}```",
    "two thoughts": f"<think>a</think><think>```\n{TWO}```</think>```python\n{ONE}```",
    "thinking": f"<thinking>```\n{TWO}```\n</thinking>\n{ONE}",
    "THINK": f"[THINK]```\n{TWO}```\n[/THINK]\n{ONE}",
    "tags": f"<code>\n{ONE}</code>",
    "tags with a class": f'<pre><code class="language-python">{ONE}</code></pre>',
    "prompt signs": ">>> import subprocess\n>>> subprocess.call(input(), shell=True)\n0\n",
    "prompt signs in a fence": "```pycon\n>>> import subprocess\n"
    ">>> subprocess.call(input(),\n...     shell=True)\n0\n```",
    "a notebook": f"```python\n%pip install x\n!ls\n{ONE}```",
    "a BOM": f"\ufeff{ONE}",
    "no fence": ONE,
    "on one line": "```python import subprocess; subprocess.call(input(), shell=True)```",
    "output behind a line that says so": f"```\n{ONE}```\n**Sample output**:\n\n```\nx = 4\n```",
    "closed, prose on the same line": f"```python\n{ONE}``` and that is it.",
    "blanks of other widths": f"```python\n{ONE}```".replace(" s", "\u00a0s").replace(
        "i", "\u200bi", 1
    ),
    "typed in a notebook": "```\nIn [1]: import subprocess\n\n"
    "In [2]: subprocess.call(input(), shell=True)\nOut[2]: 0\n```",
    "brackets": f"[PYTHON]\n{ONE}[/PYTHON]\nDone.",
    "other tags": f"<execute>\n{ONE}</execute>",
    "Markdown's indent": f"Text:\n\n{indented(ONE, '    ')}\nDone.",
    "behind prose": f"Here you are:\n\n{ONE}",
    "between prose": f"Here you are:\n\n{ONE}\nThis calls a shell.",
    "a thought of another name": f"<reasoning>\n```python\n{TWO}```\n</reasoning>\n```\n{ONE}```",
    "a thought in capitals": f"<Think>\n```python\n{TWO}```\n</Think>\n```\n{ONE}```",
    "a fence in a text": f'```python\nTEXT = """\n```\ncode\n```\n"""\n{ONE}```',
    "a fence in a docstring": f"```python\n{DOCUMENTED}{ONE}```\n",
}


def test_a_program_is_found_however_it_is_written():
    found = inspect_code(list(WRITTEN.values()))
    for (name, answer), one in zip(WRITTEN.items(), found):
        code = code_of(answer)
        assert {finding.test_id for finding in one.findings} == {"B404", "B602"}, (name, code)
        assert "double" not in code and is_program(code), (name, code)


@pytest.mark.parametrize(
    "answer",
    [
        "```diff\n- a = 1\n+ a = 2\n```",
        '```json\n{"a": 1}\n```',
        "```bash\nls\n```",
        "<think>\n" + ONE,
        "<think>```python\n" + ONE + "```",
        "[THINK]" + ONE,
        "```python\nprint 'hello'\n```",
        "```python\nif a &lt; b: pass\n```",
        "```python\nx = (\n```\nOutput:\n```\n4\n```",
        "```\nx = (\n```\nOutput:\n```\n4\n```",
        "```python\n```",
        "Use shell=True.",
        "Sorry",
        "No, sorry",
        "from my point of view: no",
        "<thought>\n" + ONE,
        "",
    ],
)
def test_what_holds_no_program_is_none(answer):
    assert not is_program(code_of(answer))


def test_blocks_of_one_program_are_joined_in_their_order():
    assert code_of(f"First:\n```\n{TWO}```\nthen\n```python\ndouble(1)\n```") == (
        f"{TWO}\ndouble(1)\n"
    )
    assert code_of(f"```python\n{ONE}```\nBetter:\n```python\n{TWO}```") == f"{ONE}\n{TWO}"
    assert code_of(f'x = s.split("</think>")\n{ONE}').startswith("x = s")


LINES = st.lists(st.sampled_from(["x = 1", "    y()", "", "# `a`", "``", "~~", "> 1", "- 2"]))


@given(LINES, st.sampled_from("`~"), st.integers(3, 6), st.integers(0, 3), st.integers(0, 2))
def test_what_stands_in_a_fence_is_what_commonmark_says(lines, mark, length, indent, more):
    fence = mark * length
    answer = "\n".join([" " * indent + fence + "python", *lines, fence + mark * more, "Done."])
    (token,) = [one for one in MarkdownIt("commonmark").parse(answer) if one.type == "fence"]
    if is_program(token.content):
        assert code_of(answer) == token.content


@given(st.text("<>/think`~\n ab=1>.-[]{}'\"", max_size=60))
def test_no_answer_is_too_odd_to_be_read(text):
    code_of(text)
    reasoning, answer = split_reasoning(text)
    assert len(reasoning) + len(answer) <= len(text)


@given(st.text("abc. \n`'\"", max_size=20), st.text("abc. \n", max_size=20))
def test_reasoning_that_is_put_before_an_answer_is_found_again(reasoning, answer):
    found = split_reasoning(with_reasoning(reasoning, answer))
    assert found == ((reasoning.strip(), answer.strip()) if reasoning.strip() else ("", answer))
