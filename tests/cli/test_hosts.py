"""Mistakes about hosts, and about where they write. Each is one line with code 2, or 69 where a
host does not answer, before a model is read."""

import json
import socket
from pathlib import Path

import pytest

from emergent_alignment.cli.main import main
from emergent_alignment.errors import Unreachable, UserError
from emergent_alignment.parallel import hosts

TWO = ["--num-processes", "2"]


def on_hosts(workdir, *words) -> list:
    return ["train", "--workdir", workdir, *words]


@pytest.fixture
def port():
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--coordinator", "127.0.0.1:9000"], "--num-processes and --process-id go together"),
        (["--cluster", "tpu", "--process-id", "1"], "leave out --coordinator and numbers"),
        (["--coordinator", "a:1", *TWO, "--process-id", "2"], "--process-id must be in 0 … 1"),
        (["--coordinator", "a", *TWO, "--process-id", "1"], "must be HOST:PORT, not 'a'"),
    ],
)
def test_words_about_hosts_that_do_not_fit_together(fails, tmp_path, words, part):
    assert part in fails(*on_hosts(tmp_path / "run", *words))


def test_a_coordinator_that_cannot_be_reached_is_named_with_what_was_tried(fails, tmp_path, port):
    words = ["--coordinator", f"127.0.0.1:{port}", *TWO, "--process-id", "1", "--host-timeout", "1"]
    said = fails(*on_hosts(tmp_path / "run", *words), code=69)
    assert f"127.0.0.1:{port} cannot be reached" in said
    assert "tries in 1 s, the last one: [Errno 111]" in said


def test_a_coordinator_s_port_that_is_taken_is_named(fails, tmp_path):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = ["--coordinator", f"127.0.0.1:{port}", *TWO, "--process-id", "0"]
        assert f"port {port} of this host cannot be used" in fails(*on_hosts("run", *words))


@pytest.mark.parametrize("cluster", ["tpu", "slurm"])
def test_a_cluster_that_is_none_is_said(fails, tmp_path, monkeypatch, cluster):
    monkeypatch.setattr(hosts.jax.distributed, "initialize", _not_there)
    monkeypatch.setattr(hosts.jax.config, "update", lambda *setting: None)
    words = ["--cluster", cluster, "--host-timeout", "1"]
    said = fails(*on_hosts(tmp_path / "run", *words), code=69)
    assert "did not come together within 1 s (nobody is there)" in said


def _not_there(**words):
    raise RuntimeError("nobody\nis there")


def test_hosts_that_differ_are_told_in_which_fields_and_where(monkeypatch):
    ours = {"version": "1", "config.loss.beta": 0.1, "config.seed": 0}
    theirs = {"version": "2", "config.loss.beta": 0.2, "config.seed": 0}
    monkeypatch.setattr(hosts.jax, "process_count", lambda: 3)
    monkeypatch.setattr(
        hosts, "gather_texts", lambda text: [text, text, json.dumps(theirs)] if text else []
    )
    with pytest.raises(UserError) as caught:
        hosts.check_same(ours)
    said = str(caught.value)
    assert said.startswith("host 2 was started differently from host 0: ")
    assert "config.loss.beta (0.1, there 0.2)" in said and "version ('1', there '2')" in said
    assert "seed" not in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--config.mesh.fsdp=3"], "does not fill 1 device; data=1, fsdp=1, tensor=1 would"),
        (["--config.mesh.data=-1", "--config.mesh.tensor=-1"], "one of them may be -1"),
    ],
)
def test_a_mesh_that_does_not_fit_is_said_with_one_that_does(fails, model, tmp_path, changes, said):
    words = [f"--config.model.path={model}", *changes]
    assert said in fails(*on_hosts(tmp_path / "run", *words))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("theirs", "ours", "kind"),
    [
        ([True, "slow hub"], None, Unreachable),
        ([False, "no such file"], None, UserError),
        ([False, "no such file"], Unreachable("slow hub"), UserError),
        ([True, "slow hub"], UserError("no such file"), UserError),
        (None, None, None),
    ],
)
def test_all_hosts_end_alike_and_a_mistake_of_one_is_a_mistake_of_all(
    monkeypatch, theirs, ours, kind
):
    monkeypatch.setattr(hosts, "gather_list", lambda found: [*found, theirs])
    raised = None
    try:
        with hosts.together():
            if ours:
                raise ours
    except UserError as error:
        raised = error
    assert type(raised) is (kind or type(None))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that none can write")
def test_a_work_directory_that_cannot_be_written_is_found_before_a_model_is_read(fails):
    said = fails(*on_hosts("/proc/run", "--config.model.path=missing"))
    assert "/proc/run: cannot be written" in said and "another --workdir" in said


def test_a_bucket_s_address_is_no_work_directory(capsys):
    with pytest.raises(SystemExit) as ended:
        main(on_hosts("gs://bucket/run"))
    (said,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and "mount the bucket" in said


@pytest.mark.parametrize("asked", ["12:10", "10", "a:b", "3:3"])
def test_steps_to_profile_that_are_none(fails, tmp_path, asked):
    said = fails(*on_hosts(tmp_path / "run", f"--profile_steps={asked}"))
    assert f"'{asked}' is not FIRST:STOP, such as 10:12" in said
