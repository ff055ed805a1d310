"""Two hosts whose candidates one server samples: each asks for its own rows, the first one writes
the weights, and a server that is gone ends both."""

import pytest
from interrupting import metrics_of
from real_runs import train_command
from rollout_engine import engine
from tiny_chat_model import write_tiny_chat_model
from two_hosts import all_done, ends, start_two

from emergent_alignment.conscience.journal import read_journal
from emergent_alignment.errors import UNREACHABLE_EXIT_CODE

SETTINGS = {
    "mesh.data": 2,
    "lora.rank": 4,
    "conscience.prompts": "task",
    "conscience.chain": "('best','fresh')",
    "conscience.samples": 2,
    "sampling.engine": "endpoint",
    "sampling.endpoint.model": "base",
    "sampling.endpoint.every": 2,
    "sampling.endpoint.retries": 0,
    "training.steps": 4,
}


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory):
    return write_tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny")


def commands_of(model_directory, folder, address) -> list[list[str]]:
    (folder / "weights").mkdir(exist_ok=True)
    where = {
        "sampling.endpoint.base_url": address,
        "sampling.endpoint.weights": folder / "weights",
    }
    return [train_command(model_directory, folder / "run", **(SETTINGS | where))] * 2


def test_two_hosts_ask_one_server(model_directory, tmp_path):
    with engine(model_directory, "--tokens") as (address, _):
        all_done(start_two(commands_of(model_directory, tmp_path, address), devices=1))
    metrics = metrics_of(tmp_path / "run")
    assert [values["engine/steps_behind"] for values in metrics.values()] == [0, 1, 0, 1]
    assert max(metrics[step]["engine/log_prob_gap"] for step in (0, 2)) < 1e-4
    places = [record["place"] for record in read_journal(tmp_path / "run" / "journal")]
    assert sorted(places) == sorted([0, 1, 2, 3] * 4), "every row was heard once"


def test_a_server_that_is_down_ends_both_hosts(model_directory, tmp_path):
    commands = commands_of(model_directory, tmp_path, "http://127.0.0.1:9/v1")
    for code, said in ends(start_two(commands, devices=1)):
        assert code == UNREACHABLE_EXIT_CODE, said
        assert "config.sampling.endpoint: http://127.0.0.1:9/v1" in said
