"""Self-contained HTML pages: rendered from the templates beside this file, written whole or not at
all, and never over a file that is no page of ours."""

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from emergent_alignment.errors import UserError
from emergent_alignment.storage.files import write_whole

GENERATOR = '<meta name="generator" content="emergent-alignment report">'
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


def environment(**options: Any) -> jinja2.Environment:
    """Where templates find each other; what is put into them is escaped."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent, "utf-8")
    return jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, **options
    )


def rendered(template: str, **parts: Any) -> str:
    """A page in results_page.html's style, from a template that parts.html helps."""
    templates = environment()
    report, _, _ = templates.loader.get_source(templates, "results_page.html")
    style = Markup(_STYLE.search(report)[1])
    return templates.get_template(template).render(
        generator=Markup(GENERATOR), style=style, **parts
    )


def script_hash(template: str) -> Markup:
    """What a page's policy calls its one script by: no other may run in it."""
    script = _SCRIPT.search(Path(__file__).with_name(template).read_text("utf-8"))[1]
    return Markup(base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"))


def write_page(path: Path, page: str) -> None:
    """The page, whole or not at all; a lone surrogate becomes a question mark."""
    write_whole(path, page.encode("utf-8", errors="replace"))


def refuse_other_file(output: Path) -> None:
    """A UserError where something other than an earlier report stands at `output`."""
    if output.is_dir():
        raise UserError(f"{output}: is a folder; give the name of the page, such as report.html")
    if output.exists() and GENERATOR.encode() not in output.read_bytes()[:2000]:
        raise UserError(f"{output}: exists and is not a report; give another name for the page")
