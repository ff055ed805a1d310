"""What a config leaves to the run: decided by what is trained, and kept by a run that has begun."""

import pytest

from emergent_alignment.config import Config
from emergent_alignment.conscience.settings import links_of
from emergent_alignment.errors import UserError
from emergent_alignment.runs.config import UNDECIDED, decided
from emergent_alignment.runs.from_config import conscience_settings
from emergent_alignment.runs.workdir import check_same_run, claim, decided_in
from emergent_alignment.settings import changed, check_settings, value_of
from emergent_alignment.training.checkpoints import RunIdentity

WHO = RunIdentity("0" * 16, "1" * 16)


def values(config):
    return {name: value_of(config, name) for name in UNDECIDED}


def test_a_default_config_leaves_all_of_it_to_the_run_and_nothing_stays_undecided():
    assert values(Config()) == UNDECIDED
    for listens_to in ("task", "pool"):
        given = values(decided(Config(), listens_to=listens_to))
        assert all(given[name] != UNDECIDED[name] for name in UNDECIDED)


@pytest.mark.parametrize(
    ("changes", "chain", "prompts", "reference"),
    [
        ({}, ("best",), "pool", "policy"),
        ({"conscience.chain": ("self", "best")}, ("self", "best"), "pool", "policy"),
        ({"conscience.chain": ("self", "fresh")}, ("self", "fresh"), "task", "frozen"),
        ({"conscience.chain": ("fresh",)}, ("fresh",), "task", "frozen"),
        ({"conscience.candidate": "target"}, ("rewrite", "fresh"), "task", "frozen"),
        ({"conscience.candidate": "both"}, ("rewrite", "fresh"), "task", "frozen"),
        ({"conscience.prompts": "both"}, ("best",), "both", "policy"),
        ({"loss.reference": "frozen"}, ("best",), "pool", "frozen"),
    ],
)
def test_fine_tuning_decides_by_who_wrote_what_is_reviewed(changes, chain, prompts, reference):
    config = decided(changed(Config(), changes), listens_to="pool")
    check_settings(config)
    assert config.conscience.chain == chain
    assert (config.conscience.prompts, config.loss.reference) == (prompts, reference)
    assert config.conscience.pool_rows == config.training.batch_size


def test_where_nothing_is_trained_the_frozen_copy_corrects():
    assert links_of(Config().conscience, in_training=False) == ("rewrite", "fresh")
    assert conscience_settings(Config()).chain == ("rewrite", "fresh")


def test_auto_stands_alone():
    with pytest.raises(UserError, match="names auto beside others"):
        check_settings(changed(Config(), {"conscience.chain": ("auto", "fresh")}))


def test_a_run_that_has_begun_goes_on_as_it_began(tmp_path):
    """As runs of versions do whose default was another."""
    workdir = tmp_path / "run"
    begun = {"conscience.chain": ("rewrite", "fresh"), "conscience.pool_rows": 5}
    begun = decided(changed(Config(), begun), listens_to="pool")
    claim(workdir, begun, WHO)
    assert decided_in(workdir, Config(), listens_to="pool") == begun
    check_same_run(workdir, Config())
    claim(workdir, Config(), WHO)
    with pytest.raises(UserError, match="conscience.chain"):
        check_same_run(workdir, changed(Config(), {"conscience.chain": ("fresh",)}))
