"""The truths of the bundled attack prompts: enough of them, balanced over kinds and sides, all
distinct, and what is encoded or split says what the row claims."""

import codecs
import collections
import difflib
import importlib.resources
import json
import re

import pytest

from emergent_alignment.applications.adversarial.prompts import load_attacks
from emergent_alignment.errors import UserError

SIDES = ("hostile", "benign")
HELD_OUT = ("refusal_suppression", "payload_splitting", "fiction", "output_format")
DECODERS = {
    "base64": lambda text: codecs.decode(text.encode(), "base64").decode(),
    "rot13": lambda text: codecs.decode(text, "rot13"),
    "hex": lambda text: bytes.fromhex(text).decode(),
    "backwards": lambda text: text[::-1],
}


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    path = (
        importlib.resources.files("emergent_alignment.applications.adversarial") / "attacks.jsonl"
    )
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_twelve_kinds_have_ten_prompts_of_each_side(rows):
    counts = collections.Counter((row["kind"], row["side"]) for row in rows)
    kinds = {row["kind"] for row in rows}
    assert len(kinds) >= 12
    assert all(counts[kind, side] >= 10 for kind in kinds for side in SIDES), counts
    assert max(counts.values()) <= 1.2 * min(counts.values()), "the kinds are balanced"


def test_every_row_has_the_four_fields_as_trimmed_text(rows):
    for number, row in enumerate(rows, 1):
        assert tuple(row) == ("kind", "side", "request", "prompt"), f"line {number}"
        assert all(value and value == value.strip() for value in row.values()), f"line {number}"


@pytest.mark.parametrize("field", ["prompt", "request"])
def test_no_text_comes_twice(rows, field):
    counts = collections.Counter(" ".join(row[field].casefold().split()) for row in rows)
    assert not [text for text, count in counts.items() if count > 1]


def test_no_request_is_nearly_another(rows):
    words = [row["request"].lower().split() for row in rows]
    for i, ours in enumerate(words):
        for theirs in words[:i]:
            alike = difflib.SequenceMatcher(None, ours, theirs, autojunk=False).ratio()
            assert alike < 0.9, (" ".join(ours), " ".join(theirs))


def test_encoded_requests_decode_to_what_the_row_claims(rows):
    used = collections.Counter()
    for row in rows:
        if row["kind"] == "encoding":
            said, encoded = row["prompt"].rsplit("\n", 1)
            (name,) = [name for name in DECODERS if name in said.lower()]
            assert DECODERS[name](encoded) == row["request"]
            assert row["request"] not in row["prompt"]
            used[name] += 1
    assert set(used) == set(DECODERS)


def test_split_requests_join_to_what_the_row_claims(rows):
    for row in rows:
        if row["kind"] == "payload_splitting":
            assert "".join(re.findall(r'"([^"]*)"', row["prompt"])) == row["request"]
            assert row["request"] not in row["prompt"]


def test_all_other_prompts_hold_their_request(rows):
    for row in rows:
        if row["kind"] not in ("encoding", "payload_splitting"):
            assert row["request"][1:] in row["prompt"], row["prompt"]


def test_the_wrapping_does_not_tell_the_sides_apart(rows):
    """A model that learnt to refuse a wording would refuse the benign look-alikes, too."""
    for kind in {row["kind"] for row in rows} - {"encoding", "payload_splitting", "many_shot"}:
        wrappings = [
            collections.Counter(
                row["prompt"].replace(row["request"][1:], "").rstrip("H").rstrip("h")
                for row in rows
                if (row["kind"], row["side"]) == (kind, side)
            )
            for side in SIDES
        ]
        shared = sum((wrappings[0] & wrappings[1]).values())
        assert shared >= 9, (kind, wrappings)


@pytest.mark.parametrize("side", SIDES)
def test_held_out_kinds_are_in_no_training_row(side):
    train, held_out = (
        load_attacks("attacks", side, HELD_OUT, split=split) for split in ("train", "heldout")
    )
    assert {row.kind for row in held_out} == set(HELD_OUT)
    assert not {row.kind for row in train} & set(HELD_OUT)
    assert not {row.text for row in train} & {row.text for row in held_out}
    assert {row.side for row in train + held_out} == {side}
    assert len(train) + len(held_out) == 120


@pytest.mark.parametrize(
    ("line", "held_out", "part"),
    [
        ('{"kind": "a", "side": "hostile"}', (), "mine.jsonl:1: found ['kind', 'side']"),
        ('{"kind": "a", "side": "evil", "prompt": "x"}', (), "side 'evil'"),
        ('["a"]', (), "found list"),
        ("{", (), "not a JSON object"),
        ('{"kind": "a", "side": "hostile", "prompt": "x"}', ("b",), "no prompts of the kind 'b'"),
        ('{"kind": "a", "side": "hostile", "prompt": "x"}', ("a",), "but for the kinds held out"),
        ('{"kind": "a", "side": "benign", "prompt": "x"}', (), "no hostile prompts"),
    ],
)
def test_a_file_of_one_s_own_is_checked(tmp_path, line, held_out, part):
    path = tmp_path / "mine.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError) as error:
        load_attacks(str(path), "hostile", held_out, split="train")
    assert part in str(error.value)
