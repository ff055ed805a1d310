"""A few of many, spread evenly over them."""

from collections.abc import Sequence

import numpy as np


def spread(items: Sequence, count: int) -> list:
    """`count` items spread evenly over the list, in their order; all where there are fewer."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def limited(items: Sequence, limit: int) -> list:
    """The same, where a limit of 0 means that there is none."""
    return spread(items, limit or len(items))


def spread_kinds(items: Sequence, kinds: Sequence[str], count: int) -> list:
    """`count` items in their order, as many of each kind as of any other, give or take one, and
    spread evenly within a kind: where kinds take turns, `spread` may step over some of them."""
    places: dict[str, list[int]] = {}
    for place, kind in enumerate(kinds):
        places.setdefault(kind, []).append(place)
    shares = dict.fromkeys(places, 0)
    for _ in range(min(count, len(items))):
        unfilled = [kind for kind in places if shares[kind] < len(places[kind])]
        shares[min(unfilled, key=shares.get)] += 1
    chosen = (place for kind, own in places.items() for place in spread(own, shares[kind]))
    return [items[place] for place in sorted(chosen)]


def spread_sample(items: Sequence, count: int, seed: int = 0) -> list:
    """At most `count` items in their order: one at random of each equal stretch."""
    if len(items) <= count:
        return list(items)
    ends = np.linspace(0, len(items), count + 1).astype(int)
    return [items[place] for place in np.random.default_rng(seed).integers(ends[:-1], ends[1:])]
