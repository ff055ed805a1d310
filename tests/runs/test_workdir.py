"""A work directory belongs to one config; what an older version did not know is no difference."""

import json

import pytest

from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import Config, default_config
from emergent_alignment.errors import UserError
from emergent_alignment.runs.workdir import RUN_FILE, check_same_run, claim
from emergent_alignment.training.checkpoints import RunIdentity


@pytest.fixture
def workdir(tmp_path):
    claim(tmp_path / "run", Config(), RunIdentity("frozen", "data"))
    return tmp_path / "run"


def test_another_setting_is_another_run_and_another_mesh_is_not(workdir):
    config = default_config()
    config.mesh.fsdp = 4
    check_same_run(workdir, typed(config))
    config.loss.beta = 0.3
    with pytest.raises(UserError, match=r"differs in loss.beta \(0.1, now 0.3\)"):
        check_same_run(workdir, typed(config))


def test_a_run_of_an_older_version_goes_on_where_newer_fields_are_at_their_defaults(workdir):
    path = workdir / RUN_FILE
    record = json.loads(path.read_text())
    del record["config"]["loss"]["kl_weight"], record["config"]["self_align"]
    path.write_text(json.dumps(record))
    config = default_config()
    check_same_run(workdir, typed(config))
    config.loss.kl_weight = 1.0
    with pytest.raises(UserError, match=r"loss.kl_weight \(0.0, now 1.0\)"):
        check_same_run(workdir, typed(config))
