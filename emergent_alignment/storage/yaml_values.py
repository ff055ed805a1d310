"""YAML that a user has written, read by one guarded reader: no text of it explodes, and no field of
it is lost.
"""

from collections.abc import Iterator
from typing import Any

import yaml

from emergent_alignment.errors import UserError

_MOST_NESTED = 50
MOST_VALUES = 200_000  # with everything that aliases repeat
MOST_BYTES = 2**21


def yaml_items(text: str, where: str) -> list[tuple[str, Any]]:
    """("where:line", value) of every item of the list that a text holds; none of a text that holds
    anything else. Raises UserError, which begins with `where`, for what is not YAML, is too long,
    nested deep, repeats more by aliases than a person reads, or has a field twice."""
    if len(text) > MOST_BYTES:
        raise UserError(f"{where}: {len(text)} letters, and {MOST_BYTES} are read at most")
    try:
        _check_depth(text, where)
        return _items(text, where)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "cannot be parsed"
        raise UserError(f"{where}{line}: not YAML ({reason}); correct the line") from None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        # dates that are none, numbers of thousands of digits, keys that are lists
        raise UserError(f"{where}: not YAML ({error}); correct it") from None


def _check_depth(text: str, where: str) -> None:
    """Nothing is built yet: a deep text is refused at the depth where it becomes one."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_NESTED:
            line = event.start_mark.line + 1
            raise UserError(
                f"{where}:{line}: nested more than {_MOST_NESTED} deep; write it flatter"
            )


def _items(text: str, where: str) -> list[tuple[str, Any]]:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if not isinstance(root, yaml.SequenceNode):
            return []
        if _size(root, where, {}) > MOST_VALUES:
            raise UserError(
                f"{where}: its aliases repeat more than {MOST_VALUES} values; write less"
            )
        return [
            (f"{where}:{node.start_mark.line + 1}", loader.construct_document(node))
            for node in root.value
        ]
    finally:
        loader.dispose()


def _size(node: yaml.Node, where: str, sizes: dict[yaml.Node, int]) -> int:
    """How many values a node holds, those that aliases repeat counted as often as they stand.
    Raises UserError for a node within itself, and for a field that stands twice."""
    if node in sizes:
        if not sizes[node]:
            line = node.start_mark.line + 1
            raise UserError(f"{where}:{line}: an alias stands in what it names; write it out")
        return sizes[node]
    sizes[node] = 0
    if isinstance(node, yaml.MappingNode):
        _check_fields(node, where)
    sizes[node] = 1 + sum(_size(inner, where, sizes) for inner in _within(node))
    return sizes[node]


def _within(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _check_fields(node: yaml.MappingNode, where: str) -> None:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        if key.value in seen:
            line = key.start_mark.line + 1
            raise UserError(f"{where}:{line}: the field {key.value!r:.60} stands twice; remove one")
        seen.add(key.value)
