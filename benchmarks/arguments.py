"""Readers of command-line values that several benchmarks share."""

import argparse
from collections.abc import Callable, Collection


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def listed(known: Collection[str]) -> Callable[[str], list[str]]:
    """A reader of names with commas between them, each one of `known`."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        wrong = [name for name in names if name not in known]
        if wrong:
            raise argparse.ArgumentTypeError(f"{wrong[0]!r}; known: {', '.join(known)}")
        return names

    return read


def positives(text: str) -> list[int]:
    """Whole numbers of at least 1 with commas between them."""
    return [positive(part) for part in text.split(",")]
