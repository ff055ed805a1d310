"""Docstrings name fields in columns (`config      sizes and family`), which Markdown would run
into one paragraph: here they become lists. An extension of griffe, which reads them for the site.
"""

import re

import griffe

FIELD = re.compile(r"^(\w+(?:, \w+)*) {2,}(\S.*)$")


class FieldsAsLists(griffe.Extension):
    """Every docstring, as it is read."""

    def on_instance(self, *, obj, **kwargs) -> None:
        if not obj.is_alias and obj.docstring:
            obj.docstring.value = with_lists(obj.docstring.value)


def with_lists(text: str) -> str:
    """The text with each run of fields as a list."""
    lines: list[str] = []
    within = False
    for line in text.splitlines():
        field = FIELD.match(line)
        if field:
            if not within:
                lines.append("")
            lines.append(f"- **`{field[1]}`** {field[2]}")
        elif within and line.startswith(" "):
            lines.append(f"  {line.strip()}")
        else:
            lines.append(line)
        within = bool(field) or (within and line.startswith(" "))
    return "\n".join(lines)
