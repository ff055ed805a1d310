"""Which of a slice's links a group of devices has, by hand on small tori."""

from types import SimpleNamespace

import pytest

from emergent_alignment.planning.hlo import program_cost
from emergent_alignment.planning.links import slice_links


def slice_of(kind, *sizes):
    """Its devices, the last axis first, as JAX orders them."""
    x, y, z = (*sizes, 1, 1)[:3]
    places = [(i, j, k) for k in range(z) for j in range(y) for i in range(x)]
    return slice_links(SimpleNamespace(device_kind=kind, coords=place) for place in places)


@pytest.mark.parametrize(
    ("links", "group", "share", "hops"),
    [
        # A row of a flat slice that is no pod wide: one link of four, from end to end.
        (slice_of("TPU v5 lite", 4, 4), [0, 1, 2, 3], 1 / 4, 3),
        (slice_of("TPU v5 lite", 4, 4), [0, 4, 8, 12], 1 / 4, 3),
        (slice_of("TPU v5 lite", 4, 4), [0, 1, 4, 5], 2 / 4, 2),
        (slice_of("TPU v5 lite", 4, 4), list(range(16)), 2 / 4, 6),
        # A whole pod's row closes to a ring, half of one does not.
        (slice_of("TPU v5 lite", 16, 16), list(range(16)), 2 / 4, 8),
        (slice_of("TPU v5 lite", 16, 16), list(range(8)), 1 / 4, 7),
        # A cube of deep chips has rings, less than a cube has none.
        (slice_of("TPU v5", 4, 4, 4), [0, 1, 2, 3], 2 / 6, 2),
        (slice_of("TPU v5", 4, 4, 4), list(range(64)), 6 / 6, 6),
        (slice_of("TPU v5", 2, 2, 1), [0, 1, 2, 3], 2 / 6, 2),
    ],
)
def test_a_group_has_the_links_of_the_axes_that_it_lies_along(links, group, share, hops):
    assert links.share(group) == pytest.approx(share)
    assert links.hops(group) == hops


def test_devices_without_places_have_none():
    assert slice_links([SimpleNamespace(device_kind="cpu")]) is None


TEXT = """HloModule m

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %rows = f32[8]{0} all-reduce(%x), replica_groups=[4,4]<=[16], to_apply=%add
  %columns = f32[8]{0} all-reduce(%rows), replica_groups=[4,4]<=[4,4]T(1,0), to_apply=%add
  %pairs = f32[8]{0} collective-permute(%columns), source_target_pairs={{0,5},{5,0}}
  ROOT %named = f32[8]{0} all-reduce(%pairs), replica_groups=mesh['a'=4,'b'=4] {'a'}, to_apply=%add
}
"""


def test_every_way_of_naming_a_group_is_read():
    """A row, a column, two chips a step apart on both axes, a column again: an all-reduce goes its
    way twice."""
    cost = program_cost(TEXT, links=slice_of("TPU v5 lite", 4, 4))
    assert cost.hops == 2 * 3 + 2 * 3 + 2 + 2 * 3
    reduced, permuted = 2 * 32 * 3 / 4, 32
    assert cost.link_bytes == pytest.approx(3 * reduced * 4 + permuted * 2)
    plain = program_cost(TEXT)
    assert (plain.hops, plain.link_bytes) == (0, sum(plain.sent.values()))
