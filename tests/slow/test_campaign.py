"""A little of the campaign that takes seconds finds no fault (`make campaign` is all of it)."""

import importlib

import pytest

COUNTS = {"inputs": 60, "files": 40, "sandbox": 12}


@pytest.mark.parametrize("kind", COUNTS)
def test_no_fault_is_found(kind, tmp_path):
    tried = list(importlib.import_module(f"campaign.{kind}").trials(COUNTS[kind], 0, tmp_path))
    assert len(tried) >= COUNTS[kind]
    assert not [one for one in tried if one.outcome in ("fault", "silent")]
