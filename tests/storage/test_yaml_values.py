"""YAML that explodes, loses a field or is none is one line; the rest is read as it stands."""

import time

import pytest
import yaml

from emergent_alignment.errors import UserError
from emergent_alignment.storage.yaml_values import yaml_items

BOMB = "- &a0 [x, x]\n" + "".join(f"- &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(12))
MERGES = "- &m0 {k: 1}\n" + "".join(
    f"- &m{i + 1} {{<<: [{', '.join([f'*m{i}'] * 9)}]}}\n" for i in range(12)
)


def test_items_come_with_their_lines_and_aliases_are_what_they_name():
    text = "# mine\n- &a {name: x, no: [1, 2]}\n\n- {<<: *a, name: y}\n- *a\n"
    found = yaml_items(text, "f.yaml")
    assert [place for place, _ in found] == ["f.yaml:2", "f.yaml:4", "f.yaml:2"]
    assert [value for _, value in found] == yaml.safe_load(text)
    assert yaml_items("a: 1", "f.yaml") == yaml_items("", "f.yaml") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "aliases repeat more than"),
        (MERGES, "aliases repeat more than"),
        ("- &a [*a]", "f.yaml:1: an alias stands in what it names"),
        ("- " + "[" * 100_000, "f.yaml:1: nested more than"),
        ("- " + "{a: " * 100_000, "f.yaml:1: nested more than"),
        ("".join(" " * i + "-\n" for i in range(99)), "f.yaml:51: nested more than"),
        ("- a: 1\n  b: 2\n  a: 3", "f.yaml:3: the field 'a' stands twice"),
        ("- " + "9" * 5000, "not YAML"),
        ("- 2001-99-99", "not YAML"),
        ("- {[a]: 1}", "not YAML"),
        ("- \ud800", "not YAML"),
        ("- a\x07b", "not YAML"),
        ("- !!python/object/apply:os.getcwd []", "f.yaml:1: not YAML"),
        ("- [", "not YAML"),
        ("x" * 3_000_000, "are read at most"),
    ],
)
def test_what_explodes_or_is_no_yaml_is_one_line_and_soon(text, said):
    begun = time.process_time()
    with pytest.raises(UserError) as refused:
        yaml_items(text, "f.yaml")
    message = str(refused.value)
    assert said in message and message.startswith("f.yaml") and len(message.splitlines()) == 1
    assert time.process_time() - begun < 2
