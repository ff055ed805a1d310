"""What the site has beside docs/: the pages at the root of the repository, one of each public name,
and pictures of benchmarks. A hook of mkdocs."""

import re
import sys
from itertools import groupby
from pathlib import Path, PurePosixPath

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from emergent_alignment import _PUBLIC  # noqa: E402 (it imports nothing else)

AT_THE_ROOT = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#|mailto:)([^)\s#]+)(#[^)\s]*)?\)")
LOSSES = """\
# Losses

::: emergent_alignment.losses
    options:
      show_root_heading: false
"""
PICTURES = (".png", ".svg")


def on_files(files, config):
    """Add the pages and pictures that stand elsewhere."""
    for source, page in AT_THE_ROOT.items():
        text = _with_links_of_the_site(source, (ROOT / source).read_text("utf-8"))
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "api.md", content=_api_page()))
    losses = (
        "# Losses\n\n::: emergent_alignment.losses\n    options:\n      show_root_heading: false\n"
    )
    files.append(File.generated(config, "api_losses.md", content=losses))
    for picture in (ROOT / "benchmarks" / "results").iterdir():
        if picture.suffix in PICTURES:
            name = str(picture.relative_to(ROOT))
            files.append(File.generated(config, name, content=picture.read_bytes()))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links as the site has them."""
    return _with_links_of_the_site(f"docs/{page.file.src_uri}", markdown)


def _api_page() -> str:
    """The names of emergent_alignment.__all__, by the module that each is from."""
    parts = ["# Python\n\n`import emergent_alignment as ea`; each name here is `ea.NAME`.\n"]
    for module, names in groupby(_PUBLIC, key=_PUBLIC.get):
        parts += [f"::: emergent_alignment.{module}.{name}\n" for name in names]
    return "\n".join(parts)


def _with_links_of_the_site(source: str, text: str) -> str:
    """The text of a file of the repository, with links to what the site has, and other names of the
    repository's as text."""
    folder = PurePosixPath(source).parent

    def changed(found: re.Match) -> str:
        mark, words, target, heading = found[1], found[2], found[3], found[4] or ""
        path = _normal(folder / target)
        if path in AT_THE_ROOT:
            return f"[{words}]({AT_THE_ROOT[path]}{heading})"
        if path.startswith("docs/") and path.endswith((".md", *PICTURES)):
            return f"{mark}[{words}]({path.removeprefix('docs/')}{heading})"
        if path.endswith(PICTURES):
            return f"{mark}[{words}]({path})"
        return words if words.strip("`") == path else f"{words} (`{path}`)"

    return LINK.sub(changed, text)


def _normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
