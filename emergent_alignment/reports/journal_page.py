"""One page of all reviews of a journal, to search, filter and turn: a static file, no server.

The reviews stand in the page as blocks of gzipped JSON, so that 100,000 of them are a file that a
mail can carry, and the browser unpacks, searches and shows what is asked for alone.
"""

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from emergent_alignment import __version__
from emergent_alignment.conscience.journal import read_journal
from emergent_alignment.errors import UserError
from emergent_alignment.reports import pages

_BLOCK = 2000  # reviews; one string of all would be longer than browsers allow
_TEMPLATE = "journal_page.html"


def write_journal_page(root: Path, *, output: Path | None = None) -> Path:
    """Write the page of a run, or of all runs in a folder of results.

    Args:
        root: a work directory, or a folder with some in it, one or two folders down.
        output: by default journal.html in `root`; an earlier page is replaced.

    Returns:
        Where the page is.

    Raises:
        UserError: where there is no journal, or another file stands at `output`.
    """
    records = list(_records(root))
    if not records:
        raise UserError(f"{root}: no journal with reviews in it; give the folder of a run")
    output = root / "journal.html" if output is None else output
    pages.refuse_other_file(output)
    page = pages.rendered(
        _TEMPLATE,
        name=root.resolve().name,
        total=f"{len(records):,}",
        blocks=[_packed(records[i : i + _BLOCK]) for i in range(0, len(records), _BLOCK)],
        script_hash=pages.script_hash(_TEMPLATE),
        version=__version__,
    )
    pages.write_page(output, page)
    return output


def _records(root: Path) -> Iterator[dict]:
    """Of every journal, what is not empty of each record, and the run that it is of."""
    for depth in ("journal", "*/journal", "*/*/journal"):
        for journal in sorted(path for path in root.glob(depth) if path.is_dir()):
            run = str(journal.parent.relative_to(root))
            for record in read_journal(journal):
                yield {"run": run} | {k: v for k, v in record.items() if v not in (None, "", [])}


def _packed(records: list[dict]) -> str:
    text = json.dumps(records, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("ascii"), mtime=0)).decode("ascii")
