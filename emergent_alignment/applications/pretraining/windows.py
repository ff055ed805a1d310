"""Windows of raw text: tokenized documents, packed one behind the other and cut.

Documents never see each other (segments), positions restart with each, no token is lost: a
document that does not fit goes on in the next window. Only the last window of a block is padded.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import jax
import numpy as np

from emergent_alignment.applications.pretraining.corpus import Corpus, Document
from emergent_alignment.data.batches import Batch
from emergent_alignment.errors import UserError
from emergent_alignment.models.attention import PrefixLayout
from emergent_alignment.storage.files import write_whole
from emergent_alignment.storage.json_files import read_json_file
from emergent_alignment.storage.json_values import digest
from emergent_alignment.storage.shapes import Number, Optional, Text


@dataclass(frozen=True)
class Windows:
    """Rows of T tokens, all [windows, T].

    tokens     int32
    segments   int32, which document of the window a token is of, from 1; 0 is padding
    positions  int32, from 0 with each document, and with each window
    targets    int32, the document's next token, which may stand in the next window
    predicts   bool, where there is one
    """

    tokens: np.ndarray
    segments: np.ndarray
    positions: np.ndarray
    targets: np.ndarray
    predicts: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, places: np.ndarray) -> "Windows":
        """Some of the windows."""
        return Windows(*(getattr(self, field.name)[places] for field in fields(self)))


@dataclass(frozen=True)
class TextBatch:
    """A step's windows, and the rows of the continuations that were reviewed (None: none)."""

    windows: Windows
    pairs: Batch | None = None

    def row_lengths(self) -> np.ndarray:
        """int32[windows, 1]: how many tokens each window has."""
        return (self.windows.segments > 0).sum(1)[:, None]

    def padding_share(self, lengths: np.ndarray | None = None) -> float:
        """That of the windows; see StepBatch."""
        lengths = self.row_lengths() if lengths is None else lengths
        return float(1 - lengths.sum() / (len(lengths) * self.windows.tokens.shape[1]))

    def branch_columns(self) -> dict[str, int]:
        """Windows have no branches."""
        return {}

    def computed_layouts(self, rows: int) -> list[tuple[PrefixLayout, int, bool]]:
        """A window costs what one branch without a prompt does; see StepBatch."""
        num_windows, size = self.windows.tokens.shape
        layouts = [(PrefixLayout(0, 1, size), rows, True)]
        if self.pairs is None:
            return layouts
        reviewed = rows * len(self.pairs.prompt) // num_windows
        return layouts + self.pairs.computed_layouts(reviewed)


jax.tree_util.register_dataclass(Windows)
jax.tree_util.register_dataclass(TextBatch)


def pack(documents: list[list[int]], size: int) -> Windows:
    """Documents of token ids, in their order, in as few windows of `size` as hold them."""
    lengths = np.array([len(tokens) for tokens in documents], np.int64)
    total = int(lengths.sum())
    num_windows = -(-total // size)
    flat = np.zeros(num_windows * size + 1, np.int32)
    flat[:total] = np.fromiter(itertools.chain.from_iterable(documents), np.int32, total)
    owner, offset, left = np.zeros((3, num_windows * size), np.int64)
    owner[:total] = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    offset[:total] = np.arange(total) - np.repeat(lengths.cumsum() - lengths, lengths)
    left[:total] = np.repeat(lengths, lengths) - offset[:total] - 1
    owner, offset = owner.reshape(-1, size), offset.reshape(-1, size)
    return Windows(
        flat[:-1].reshape(-1, size),
        np.where(owner > 0, owner - owner[:, :1] + 1, 0).astype(np.int32),
        np.minimum(offset, np.arange(size)).astype(np.int32),
        flat[1:].reshape(-1, size),
        (left > 0).reshape(-1, size),
    )


def is_held_out(number: int, share: float) -> bool:
    """Whether the document of this number is kept from training: every 1/share-th, evenly."""
    return int((number + 1) * share) > int(number * share)


@dataclass(frozen=True)
class PackingSettings:
    """T tokens a window; documents shuffled and packed together; share of documents held out."""

    window_tokens: int
    block_documents: int
    heldout_share: float
    seed: int


@dataclass(frozen=True)
class _Block:
    """A run of documents: the pass over the corpus, the number of its first one, and how many
    windows all blocks before it have."""

    epoch: int
    first_document: int
    first_window: int


_COUNT = Number(0, whole=True)
_KEPT = {
    "identity": Text(),
    "blocks": [{field.name: _COUNT for field in fields(_Block)}],
    "digest": Optional(Text()),
}


class Packing:
    """The windows of a corpus, pass after pass: window n is a pure function of (corpus,
    settings, n).

    Documents go through in blocks. A block is shuffled, packed, and its windows are shuffled: so
    nothing larger than a block is held, and a pass over a small corpus has an order of its own.
    Where the blocks begin is kept in the file `kept` (or nowhere): a resumed run goes to its place
    without reading what stands before.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenize: Callable[[list[Document]], list[list[int]]],
        settings: PackingSettings,
    ):
        self._corpus, self._tokenize, self.settings = corpus, tokenize, settings
        self._blocks = [_Block(0, 0, 0)]
        self._last: tuple[int, Windows, int] | None = None
        self._stream: tuple[int, Iterator[Document]] | None = None
        self._kept: Path | None = None
        self._identity = ""

    def remember(self, kept: Path, identity: str, *, writes: bool = True) -> None:
        """Go on from the blocks that the file `kept` knows of the corpus with this identity, and
        add to it what is found (one host alone `writes`)."""
        self._identity = identity
        if kept.exists():
            known = _read_kept(kept)
            if known.get("identity") == identity:
                blocks = [_Block(**block) for block in known["blocks"]]
                self._blocks = max(blocks, self._blocks, key=len)
        self._kept = kept if writes else None
        self._keep()

    def windows(self, first: int, count: int) -> Windows:
        """Windows number `first` to `first + count - 1`. Raises UserError for a corpus that is
        not text or shorter than one window."""
        parts, wanted = [], first
        while wanted < first + count:
            number = self._block_of(wanted)
            block, packed = self._blocks[number], self._packed(number)[0]
            start = wanted - block.first_window
            stop = min(start + first + count - wanted, len(packed))
            parts.append(packed.rows(self._order(number, len(packed))[start:stop]))
            wanted += stop - start
        return jax.tree.map(lambda *rows: np.concatenate(rows), *parts)

    def summary(self) -> str:
        """The first block in words: documents, tokens, windows, and the share of padding."""
        windows, num_read = self._packed(0)
        share = self.settings.heldout_share
        held_out = sum(is_held_out(number, share) for number in range(num_read))
        num_tokens = int((windows.segments > 0).sum())
        part = "the first " if num_read == self.settings.block_documents else ""
        return (
            f"{part}{num_read} documents, of which {held_out} are held out; {num_tokens:,} tokens "
            f"in {len(windows):,} windows of {self.settings.window_tokens}, none left out, "
            f"{1 - num_tokens / windows.tokens.size:.2%} padding"
        )

    def _order(self, number: int, size: int) -> np.ndarray:
        return self._random(number, 1).permutation(size)

    def _random(self, number: int, purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.settings.seed, 2 * number + purpose]))

    def _block_of(self, window: int) -> int:
        """The number of the block that holds a window; blocks on the way to it are packed."""
        while True:
            number = next(
                i
                for i in reversed(range(len(self._blocks)))
                if self._blocks[i].first_window <= window
            )
            if number < len(self._blocks) - 1:
                return number
            block = self._blocks[number]
            packed, num_read = self._packed(number)
            following = _Block(
                block.epoch, block.first_document + num_read, block.first_window + len(packed)
            )
            if num_read < self.settings.block_documents:
                following = _Block(block.epoch + 1, 0, following.first_window)
            self._blocks.append(following)
            self._keep()

    def _packed(self, number: int) -> tuple[Windows, int]:
        """A block's windows, and how many documents were read for them."""
        if self._last is None or self._last[0] != number:
            block = self._blocks[number]
            documents = self._read(block.first_document)
            trained = _trained(documents, block.first_document, self.settings.heldout_share)
            tokens = self._tokenize(trained)
            order = self._random(number, 0).permutation(len(tokens))
            num_tokens, size = sum(map(len, tokens)), self.settings.window_tokens
            if block.first_document == 0 and num_tokens < size:
                raise UserError(
                    f"config.pretraining.corpus: {len(documents)} documents with {num_tokens} "
                    f"tokens to train on are shorter than one window of {size}; name a larger "
                    "corpus, or raise config.pretraining.block_documents"
                )
            self._last = number, pack([tokens[i] for i in order], size), len(documents)
        return self._last[1:]

    def _read(self, first: int) -> list[Document]:
        """One block of documents; the stream of the block before goes on where it does."""
        at, stream = self._stream or (-1, iter(()))
        if at != first:
            stream = self._corpus.documents(first)
        documents = [document for _, document in zip(range(self.settings.block_documents), stream)]
        self._stream = first + len(documents), stream
        return documents

    def _keep(self) -> None:
        if self._kept is not None:
            blocks = [vars(block) for block in self._blocks]
            record = {"identity": self._identity, "blocks": blocks}
            write_whole(self._kept, json.dumps(record | {"digest": digest(record)}))


def _read_kept(path: Path) -> dict:
    """What a file knows of a corpus; {} where it is damaged, and has to be found out again."""
    try:
        known = read_json_file(path, _KEPT, "")
    except UserError:
        return {}
    record = {"identity": known["identity"], "blocks": known["blocks"]}
    return record if known.get("digest") in (None, digest(record)) else {}


def trained_documents(corpus: Corpus, count: int, share: float) -> list[Document]:
    """The first `count` documents but for those that are held out."""
    return _trained(itertools.islice(corpus.documents(), count), 0, share)


def _trained(documents: Iterable[Document], first: int, share: float) -> list[Document]:
    return [
        document
        for number, document in enumerate(documents, first)
        if not is_held_out(number, share)
    ]


def held_out_documents(corpus: Corpus, share: float) -> Iterator[Document]:
    """The documents that training never sees, in their order."""
    for number, document in enumerate(corpus.documents()):
        if is_held_out(number, share):
            yield document
