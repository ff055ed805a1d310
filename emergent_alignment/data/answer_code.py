"""The Python program in an answer, as chat models write programs: in fences, beside the shell's
commands and outputs, under lists and quotations, after a thinking block. Whatever reads code out of
answers reads it here.

Fences are CommonMark's. Models do not always keep its rules: where the program so read does not
parse, looser readings are tried, and the first that parses counts.
"""

import ast
import doctest
import functools
import itertools
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt

from emergent_alignment.data.reasoning import split_reasoning

_PYTHON = re.compile(r"(?:i?python|py|pycon|jupyter|sage)[\d.]*", re.IGNORECASE)
_LABEL = re.compile(r"[\s{.]*(?P<name>[\w+#-]+(?:\.\d+)*)")
# Labels of blocks that are no Python. One that is not here (`code`, `app.py`) says nothing.
_OTHERS = frozenset(
    "bash sh shell zsh fish console shell-session terminal cmd bat batch powershell ps1 dos "
    "json json5 jsonc jsonl yaml yml toml ini cfg conf env dotenv properties csv tsv "
    "text txt plaintext plain output out stdout stderr log logs traceback error none raw "
    "diff patch html htm xml svg css scss less js javascript mjs ts typescript jsx tsx vue "
    "java kotlin scala c h cpp c++ cxx cs csharp c# objc go golang rust rs ruby rb php perl pl r "
    "julia lua swift dart haskell hs elixir erlang clojure sql mysql postgresql sqlite graphql "
    "dockerfile docker makefile make cmake nginx apache http markdown md rst latex tex mermaid "
    "dot graphviz tree requirements gitignore assembly asm wasm solidity vb matlab".split()
)
_LOOSE = re.compile(r"(?<![`~])(?P<mark>`{3,}|~{3,})(?P<label>[^\n`]*)\n")
_INLINE = re.compile(r"(?<!`)(?P<mark>`{3,})(?!`)[ \t]*(?P<code>[^`\n]+?)(?P=mark)(?!`)")
_TAGGED = re.compile(
    r"(?:<(?P<tag>code|python|execute)\b[^>]*>|(?P<mark>\[)PYTHON\])\n?(?P<code>.*?)"
    r"(?:(?(mark)\[/PYTHON\]|</(?P=tag)>)|\Z)",
    re.DOTALL | re.IGNORECASE,
)
# What stands before a block that a program has printed.
_PRINTED = re.compile(
    r"[\W_]*(?:\w+ ){0,2}(?:outputs?|prints|printed|results?)[\W_]*", re.IGNORECASE
)
_MAGIC = re.compile(r"^[%!][^\n]*$", re.MULTILINE)
_TYPED = re.compile(r"^In \[\d*\]: ?", re.MULTILINE)
_NOTHING_SEEN = str.maketrans({"\u00a0": " ", "\u200b": None, "\ufeff": None, "\u2060": None})
_BEGINS = re.compile(r"(?:import|from|def|async|class|for|while|with|try|if|print)\b|@|\w+ = ")
_MOST_ENDS = 20


@dataclass(frozen=True)
class _Block:
    """A block of an answer: what its fence says it is, and what stands in it."""

    label: str
    text: str

    @functools.cached_property
    def language(self) -> str:
        """python, "" (not said), or other."""
        named = _LABEL.match(self.label)
        if named is None:
            first = self.text.strip().partition("\n")[0]
            return "python" if _PYTHON.fullmatch(first.strip()) else ""
        if _PYTHON.fullmatch(named["name"]):
            return "python"
        return "other" if named["name"].lower() in _OTHERS else ""

    @functools.cached_property
    def program(self) -> str:
        """The text without what is not of the language: a label in its first line, prompt signs and
        what was printed after them, a notebook's commands."""
        text, first = self.text, self.text.strip().partition("\n")[0].strip()
        if not self.label.strip() and _PYTHON.fullmatch(first):
            text = text.lstrip().partition("\n")[2]
        return _plain_program(text)

    @functools.cached_property
    def does_something(self) -> bool:
        """Whether it is a program with more in it than values: outputs are often values."""
        tree = _tree(self.program)
        return tree is not None and any(not isinstance(node, ast.Expr) for node in tree.body)


def code_of(answer: str) -> str:
    """The program of an answer, thinking left out: its Python blocks, joined. Blocks in another
    language are not of it, and those that say none only where they hold statements, or where no
    block is said to be Python. Without any block it is the whole answer, or what of it stands
    behind prose; "" where all blocks are in other languages, and where a word is all there is."""
    text = split_reasoning(answer)[1].removeprefix("\ufeff")
    programs = []
    for read in (_fenced, _loosely_fenced, _on_one_line, _tagged):
        blocks = list(read(text))
        if blocks:
            programs.append(_program_of(blocks))
            if is_program(programs[-1]):
                return programs[-1]
    return programs[0] if programs else _unfenced(text)


def is_program(code: str) -> bool:
    """Whether it is Python, with at least one statement."""
    tree = _tree(code)
    return tree is not None and bool(tree.body)


def parse_problem(code: str) -> str:
    """Why `code` is not a Python program of at least one statement; "" if it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            tree = ast.parse(code)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:  # NUL, lone surrogates, nesting
        return f"{type(error).__name__}: {error}"
    return "" if tree.body else "no statement"


def _tree(code: str) -> ast.Module | None:
    return None if parse_problem(code) not in ("", "no statement") else ast.parse(code)


def _program_of(blocks: list[_Block]) -> str:
    doing = [block.language == "" and block.does_something for block in blocks]
    said = [block.language == "python" for block in blocks]
    if any(said) or any(doing):
        kept = [block for block, *counts in zip(blocks, said, doing) if any(counts)]
    else:
        kept = [block for block in blocks if block.language == ""]
    return "\n".join(block.program for block in kept)


def _unfenced(text: str) -> str:
    """A whole answer as a program; where it is none, its blocks that Markdown indents, or the lines
    from the first one on that begin one."""
    program = _plain_program(text)
    if is_program(program):
        return program if _has_statement(program) else ""
    indented = [_Block("", t.content) for t in _markdown().parse(text) if t.type == "code_block"]
    doing = [block.program for block in indented if block.does_something]
    if doing:
        return "\n".join(doing)
    lines = text.splitlines(keepends=True)
    for start in itertools.islice((i for i, line in enumerate(lines) if _BEGINS.match(line)), 3):
        for end in range(len(lines), max(start, len(lines) - _MOST_ENDS), -1):
            part = "".join(lines[start:end])
            if is_program(part) and _has_statement(part):
                return part
    return program


def _has_statement(program: str) -> bool:
    """Whether it is more than words, such as Sorry, which are expressions of Python's, too."""
    said = (ast.Name, ast.Constant, ast.Tuple, ast.Attribute)
    body = ast.parse(program).body
    return not all(isinstance(n, ast.Expr) and isinstance(n.value, said) for n in body)


def _fenced(text: str) -> Iterator[_Block]:
    """CommonMark's fenced blocks, wherever they stand; one without a label that stands behind
    "Output:" holds what was printed."""
    lines = text.splitlines()
    for token in _markdown().parse(text):
        if token.type == "fence":
            before = [
                line for line in lines[max(token.map[0] - 2, 0) : token.map[0]] if line.strip()
            ]
            printed = not token.info and before and _PRINTED.fullmatch(before[-1])
            yield _Block("output" if printed else token.info, token.content)


@functools.cache
def _markdown() -> MarkdownIt:
    """Blocks alone; HTML around a fence does not hide it."""
    markdown = MarkdownIt("commonmark").disable("html_block")
    markdown.core.ruler.enableOnly(["normalize", "block"])
    return markdown


def _loosely_fenced(text: str) -> Iterator[_Block]:
    """Fences that open behind prose or deep in a line, close behind code, or show fences in a text
    of theirs: of a block's possible ends the first counts with which it is a program."""
    at = 0
    while opened := _LOOSE.search(text, at):
        mark = re.escape(opened["mark"])
        closing = re.compile(rf"(?<![ \t>])[ \t>]*{mark}[`~]*(?=\s|\Z)")
        closings = itertools.islice(closing.finditer(text, opened.end()), _MOST_ENDS)
        ends = [end.span() for end in closings] or [(len(text), len(text))]
        blocks = [_Block(opened["label"], text[opened.end() : start]) for start, _ in ends]
        chosen = next((i for i, block in enumerate(blocks) if is_program(block.program)), 0)
        yield blocks[chosen]
        at = ends[chosen][1]


def _on_one_line(text: str) -> Iterator[_Block]:
    for inline in _INLINE.finditer(text):
        word, _, rest = inline["code"].partition(" ")
        labelled = _PYTHON.fullmatch(word) and rest
        yield _Block(word, rest) if labelled else _Block("", inline["code"])


def _tagged(text: str) -> Iterator[_Block]:
    for tagged in _TAGGED.finditer(text):
        yield _Block("", tagged["code"])


def _plain_program(text: str) -> str:
    text = text.removeprefix("\ufeff")
    if _TYPED.match(text.lstrip()):
        text = _TYPED.sub("", re.sub(r"^Out\[\d*\]:[^\n]*$", "", text, flags=re.MULTILINE))
    if text.lstrip().startswith(">>>"):
        text = _without_prompts(text)
    seen = text.translate(_NOTHING_SEEN)
    for mended in (text, textwrap.dedent(text), _MAGIC.sub("", text), seen):
        if is_program(mended):
            return mended
    return text


def _without_prompts(text: str) -> str:
    """What was typed in a session, without what was printed."""
    try:
        typed = doctest.DocTestParser().get_examples(text)
    except ValueError:  # prompts that are none
        return text
    return "".join(example.source for example in typed) or text
