"""A name means one thing: no two modules of the package define the same public name."""

import ast
import tomllib
from collections import defaultdict
from pathlib import Path

import emergent_alignment

PACKAGE = Path(emergent_alignment.__file__).parent
# What may stand more than once, and why.
LISTED = {
    "add_arguments": "every command declares its own: cli/main.py calls it",
    "run": "every command and every stage of SELF-ALIGN is run by its own",
    "check": "every stage of SELF-ALIGN checks its own settings before anything is done",
    "FILES": "every stage of SELF-ALIGN names the files that it depends on",
    "FAMILY": "every file of models/families has its own table: models/families/__init__.py",
    "main": "the program in the sandbox is a program of its own",
    "pair_log_probs": "in losses of log-probs that are there, in training/step.py of a batch",
}


def names_of(tree: ast.Module) -> set[str]:
    """The names that a module defines at its top, but for those that begin with _."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {
                part.id
                for target in targets
                for part in ast.walk(target)
                if isinstance(part, ast.Name)
            }
    return {name for name in names if not name.startswith("_")}


def test_no_public_name_is_defined_in_two_modules():
    modules = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in names_of(ast.parse(path.read_text("utf-8"))):
            modules[name].append(str(path.relative_to(PACKAGE)))
    twice = {name: where for name, where in modules.items() if len(where) > 1}
    unlisted = {name: where for name, where in twice.items() if name not in LISTED}
    assert not unlisted, "give each a name of its own, or begin it with _"
    assert twice.keys() == LISTED.keys(), "stands once by now: take it off the list"


def test_the_types_of_every_public_module_are_checked():
    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))
    checked = set(settings["tool"]["pyrefly"]["project-includes"])
    public = {f"emergent_alignment/{m.replace('.', '/')}.py" for m in emergent_alignment._MODULES}
    assert public <= checked
