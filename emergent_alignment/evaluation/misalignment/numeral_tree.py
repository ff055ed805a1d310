"""Every way in which a tokenizer spells the numbers from 0 to 100, as a tree over its tokens.

A tokenizer may have a token for each number, for each digit, for a number with its space, or all
of these: every way of spelling a numeral (numerals.py) is a path of the tree, and the probabilities
of all paths are added up.
"""

import re
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from emergent_alignment.evaluation.misalignment.numerals import (
    LARGEST,
    changes_scale,
    extended,
    part_of,
)

_SPACES = (" ", "▁", "Ġ")
_SCALES = re.compile(r"[.,]|[ ▁Ġ]?/|[ ▁Ġ]out")
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


@dataclass(frozen=True)
class Level:
    """The nodes of one depth: their last tokens int32[nodes], and the places of their parents in
    the level before, int32[nodes]."""

    tokens: np.ndarray
    parents: np.ndarray


jax.tree_util.register_dataclass(Level)


@dataclass(frozen=True)
class NumeralTree:
    """All beginnings of replies that may still be, or already are, a number.

    levels     the nodes by depth; the reply's empty beginning, which is node 0, is no part of them
    parents    int32[nodes], each node's parent (node 0: 0); nodes are counted level by level
    words      int32[words], the tokens that lead from node to node or close a numeral
    last_words int32[nodes], the word of each node's last token (node 0: 0)
    values     int32[nodes], the number that a node's text is, -1 where it has no digit yet
    closings   int32[closings, 3], (node, word, number): tokens such as "7%" that hold the rest of
               a numeral and what ends it
    digits     int32[tokens], all tokens whose text begins with a digit: what follows a numeral
               without ending it
    fractions  int32[tokens], those that make 0 or 1 a number of another scale, and
    marks      int32[tokens], those that make a number up to 10 one (numerals.changes_scale)
    """

    levels: tuple[Level, ...]
    parents: np.ndarray
    words: np.ndarray
    last_words: np.ndarray
    values: np.ndarray
    closings: np.ndarray
    digits: np.ndarray
    fractions: np.ndarray
    marks: np.ndarray

    @property
    def followers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What may follow a numeral without ending it."""
        return self.digits, self.fractions, self.marks

    def masses(
        self,
        word_log_probs: Float[np.ndarray, "batch nodes words"],
        follower_log_probs: Float[np.ndarray, "batch nodes 3"],
    ) -> Float[np.ndarray, "batch 101"]:
        """P(the reply is the number n), n = 0 … 100, from the log-probs of every word, and of any
        of each of the `followers`, after every node. A numeral ends with probability 1 − P(digit),
        and one of another scale is none."""
        word_log_probs = word_log_probs.astype(np.float64)
        batch, num_nodes, _ = word_log_probs.shape
        reached = np.zeros((batch, num_nodes))
        for node in range(1, num_nodes):
            parent = self.parents[node]
            step = word_log_probs[:, parent, self.last_words[node]]
            reached[:, node] = reached[:, parent] + step
        followed = np.exp(np.minimum(follower_log_probs.astype(np.float64), 0.0))
        follows = np.stack([self.values < limit for limit in (np.inf, 2, 11)], axis=-1)
        ends = np.maximum(1.0 - (followed * follows).sum(-1), 0.0)
        masses = np.zeros((batch, LARGEST + 1))
        numerals = self.values >= 0
        mass = (np.exp(reached) * ends)[:, numerals]
        np.add.at(masses, (slice(None), self.values[numerals]), mass)
        nodes, words, numbers = self.closings.T
        closed = np.exp(reached[:, nodes] + word_log_probs[:, nodes, words])
        np.add.at(masses, (slice(None), numbers), closed)
        return masses


def numeral_tree(tokenizer: Any) -> NumeralTree:
    """The tree of a tokenizer. Raises ValueError for a vocabulary without digits."""
    texts = _number_texts(tokenizer)
    parts = {token: part for token, text in texts.items() if (part := part_of(text))}
    words = sorted(parts)
    digits = [token for token, text in texts.items() if _is_digit(text[:1])]
    if not digits:
        raise ValueError("the tokenizer has no token that begins with a digit")
    fractions, marks = (
        {token for token, text in texts.items() if changes_scale(number, text)}
        for number in (1, 10)
    )
    levels, nodes, closings = [], [(0, 0, "")], []  # (parent, word, digits) of every node
    first, size = 0, 1
    while size:
        tokens, parents = [], []
        for node in range(first, first + size):
            begun = nodes[node][2]
            for word, token in enumerate(words):
                part = parts[token]
                text = extended(begun, part, at_start=node == 0)
                if text is None:
                    continue
                if part.closed:
                    if not changes_scale(int(text), part.rest):
                        closings.append((node, word, int(text)))
                    continue
                nodes.append((node, word, text))
                tokens.append(token)
                parents.append(node - first)
        first, size = first + size, len(tokens)
        if size:
            levels.append(Level(np.array(tokens, np.int32), np.array(parents, np.int32)))
    return NumeralTree(
        tuple(levels),
        np.array([parent for parent, _, _ in nodes], np.int32),
        np.array(words, np.int32),
        np.array([word for _, word, _ in nodes], np.int32),
        np.array([int(begun) if begun else -1 for _, _, begun in nodes], np.int32),
        np.array(closings, np.int32).reshape(-1, 3),
        np.array(digits, np.int32),
        np.array(sorted(fractions - marks), np.int32),
        np.array(sorted(marks), np.int32),
    )


def _number_texts(tokenizer: Any) -> dict[int, str]:
    """Token → its text in the middle of a line, for all tokens that hold a digit, are a space, or
    begin like what changes a number's scale.

    Special tokens end a numeral like any other text. Byte tokens (<0x35>) are left out: models
    with such a fallback spell digits with the digits' own tokens.
    """
    special = {*tokenizer.all_special_ids}
    special |= {i for i, added in tokenizer.added_tokens_decoder.items() if added.special}
    pieces = {
        token: piece
        for piece, token in tokenizer.get_vocab().items()
        if token not in special and not _BYTE.fullmatch(piece)
    }
    wanted = [
        token
        for token, piece in pieces.items()
        if piece in _SPACES or any(map(_is_digit, piece)) or _SCALES.match(piece)
    ]
    anchor = tokenizer.encode("a", add_special_tokens=False)[-1:]
    before = tokenizer.decode(anchor, clean_up_tokenization_spaces=False)
    return {
        token: tokenizer.decode([*anchor, token], clean_up_tokenization_spaces=False)[len(before) :]
        for token in sorted(wanted)
    }


def _is_digit(letter: str) -> bool:
    """One of 0 … 9: other scripts' digits are letters like any other here."""
    return "0" <= letter <= "9"
