"""An experiment on a tiny model: what is missing is run, once, and one page tells of all seeds."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.cli.config_files import typed
from emergent_alignment.cli.main import main
from emergent_alignment.config import default_config
from emergent_alignment.errors import UserError
from emergent_alignment.experiments.arms import Arm, at_the_rates_of, check_arms
from emergent_alignment.experiments.plan import planned
from emergent_alignment.intervals import Interval, mean_over_seeds
from emergent_alignment.reports.experiment_page import over_seeds

pytestmark = pytest.mark.long

ARMS = (
    "base",
    "plain: conscience.enabled=False calibration.num_reporting=4",
    "conscience",
    "chance: conscience.verdicts=chance",
)
SETTINGS = {
    "data.limit": 24,
    "data.buckets": 1,
    "data.max_prompt_tokens": 48,
    "data.max_response_tokens": 48,
    "conscience.gate": "relative",
    "conscience.chain": "('fresh',)",
    "conscience.keep_truncated": True,
    "conscience.batch_size": 4,
    "conscience.max_review_tokens": 160,
    "sampling.max_new_tokens": 8,
    "training.steps": 2,
    "training.batch_size": 4,
    "calibration.questions": "('advice',)",
    "calibration.layouts": "('quote',)",
    "calibration.num_selecting": 8,
    "calibration.num_reporting": 8,
    "evaluation.limit": 8,
    "evaluation.samples": 4,
    "evaluation.max_new_tokens": 8,
    "experiment.arms": str(ARMS),
    "experiment.seeds": "(0, 1)",
}


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The command line, and the folder that one whole experiment has filled."""
    folder = tmp_path_factory.mktemp("experiment")
    model = write_tiny_chat_model(folder / "model")
    words = ["experiment", "--root", str(folder / "root"), f"--config.model.path={model}"]
    words += [f"--config.{name}={value}" for name, value in SETTINGS.items()]
    assert main(words) == 0
    return words, folder / "root"


def changed(words, **settings):
    """The command with other settings of config.experiment; the flag of a tuple given twice would
    add to it."""
    kept = [word for word in words if word.split("=")[0].split(".")[-1] not in settings]
    return kept + [f"--config.experiment.{name}={value}" for name, value in settings.items()]


def test_its_pages_are_written_anew_from_what_is_there(command, capsys, tmp_path):
    _, root = command
    page, once = root / "experiment.html", (root / "experiment.html").read_text()
    page.unlink()
    assert main(["report", str(root)]) == 0
    assert page.read_text() == once and "means over seeds" in capsys.readouterr().out
    assert main(["report", str(root), "--output", str(tmp_path / "page.html")]) == 2
    assert "experiment" in capsys.readouterr().err and not (tmp_path / "page.html").exists()


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_arm_of_every_seed_is_there_and_in_the_page(command):
    _, root = command
    page = (root / "experiment.html").read_text()
    for seed in (0, 1):
        for arm in ("base", "plain", "conscience", "chance"):
            assert (root / f"seed-{seed}" / arm / "evaluation.json").exists()
        assert f"seed-{seed}/report.html" in page
    assert all(f">{arm}</th>" in page for arm in ("base", "plain", "conscience", "chance"))
    margins = [
        json.loads((root / f"seed-{seed}/plain/evaluation.json").read_text())["margin"]["value"]
        for seed in (0, 1)
    ]
    assert margins[0] != margins[1], "seeds must differ"
    assert mean_over_seeds(margins).text() in page


def test_figures_are_files_of_their_own_too(command):
    _, root = command
    for name in ("trade-off", "task-loss"):
        figure = ElementTree.parse(root / "figures" / f"{name}.svg").getroot()
        assert figure.tag == "{http://www.w3.org/2000/svg}svg"


def test_chance_has_the_rates_of_the_conscience_beside_it(command):
    _, root = command
    rows = metrics(root / "seed-0" / "conscience")
    found = json.loads((root / "seed-0/chance/run.json").read_text())["config"]["conscience"]
    assert found["chance_flag_rate"] == pytest.approx(np.mean([row["flag_rate"] for row in rows]))
    passed = sum(row["outcome/revised_fresh"] for row in rows)
    tried = passed + sum(row["outcome/dropped_disapproved"] for row in rows)
    assert found["chance_pass_rate"] == pytest.approx(passed / tried)


def test_an_arm_that_changes_the_calibration_has_its_own(command):
    _, root = command
    for arm, name, pairs in (
        ("plain", "calibration-plain", 4),
        ("conscience", "calibration", 8),
        ("chance", "calibration", 8),
    ):
        config = json.loads((root / f"seed-1/{arm}/run.json").read_text())["config"]
        path = root / f"{name}.json"
        assert config["conscience"]["calibration"] == str(path)
        assert len(json.loads(path.read_text())["chosen"]["scores_safe"]) == pairs


def test_the_model_is_held_once_for_all_arms(command, monkeypatch):
    def never(config):
        raise AssertionError("read again")

    monkeypatch.setattr("emergent_alignment.experiments.arms.load_model", never)
    assert main(command[0]) == 0


def test_a_second_start_does_only_what_is_missing(command, capfd):
    words, root = command
    kept = {
        path: path.read_bytes()
        for path in root.rglob("*")
        if path.name in ("metrics.jsonl", "evaluation.json")
    }
    (root / "seed-1" / "plain" / "evaluation.json").unlink()
    assert main(words) == 0
    assert {path: path.read_bytes() for path in kept} == kept
    assert capfd.readouterr().err.count("evaluated already") == 7


def test_an_arm_whose_folder_is_of_another_config_is_an_error_before_anything_runs(command, capsys):
    words, root = command
    before = (root / "experiment.html").stat().st_mtime_ns
    other = str((*ARMS[:2], "conscience: loss.beta=0.3"))
    assert main(changed(words, arms=other)) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "seed-0/conscience" in said and "loss.beta (0.1, now 0.3)" in said
    assert (root / "experiment.html").stat().st_mtime_ns == before


def test_an_arm_is_added_to_an_experiment_that_is_done(command):
    words, root = command
    kept = {path: path.read_bytes() for path in root.rglob("metrics.jsonl")}
    more = str((*ARMS, "kl: conscience.enabled=False loss.kl_weight=0.3"))
    assert main(changed(words, arms=more, seeds=(0,))) == 0
    assert {path: path.read_bytes() for path in kept} == kept
    assert ">kl</th>" in (root / "experiment.html").read_text()


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        (("plain", "plain: loss.beta=0.3"), "second arm is named plain"),
        (("../up",), "is no name for an arm"),
        (("plain: conscience.enabled",), "is not section.field=value"),
    ],
)
def test_mistakes_in_the_arms_are_said_with_their_place(arms, said):
    config = default_config()
    config.experiment.arms = arms
    with pytest.raises(UserError, match=rf"config.experiment.arms\[.\]: .*{said}"):
        planned(typed(config).experiment)


def test_one_seed_keeps_its_interval_over_items():
    one = Interval(1.0, 0.5, 1.5, 40)
    assert over_seeds([one]) == one
    assert over_seeds([]) is None
    assert over_seeds([one, Interval(3.0, 0.0, 9.0, 40)]) == mean_over_seeds([1.0, 3.0])


def test_chance_takes_its_rates_from_each_step_once_also_where_a_run_was_resumed(tmp_path):
    lines = [
        {"flag_rate": 0.25, "outcome/revised_fresh": 1.0, "outcome/dropped_disapproved": 3.0},
        {"flag_rate": 0.75, "outcome/revised_fresh": 2.0, "outcome/dropped_disapproved": 2.0},
    ]
    found = []
    for name, steps in (("whole", (0, 1)), ("resumed", (0, 1, 1))):
        (tmp_path / name).mkdir()
        text = "".join(json.dumps({"step": step} | lines[step]) + "\n" for step in steps)
        (tmp_path / name / "metrics.jsonl").write_text(text)
        config = at_the_rates_of(typed(default_config()), tmp_path / name)
        found.append((config.conscience.chance_flag_rate, config.conscience.chance_pass_rate))
    assert found[0] == found[1] == (0.5, 3 / 8)
    (tmp_path / "whole" / "metrics.jsonl").write_text('{"step": 1, "flag_rate": 0.5}\n')
    with pytest.raises(UserError, match="metrics.jsonl: step 0 is missing"):
        at_the_rates_of(typed(default_config()), tmp_path / "whole")


def test_chance_before_the_arm_whose_rates_it_takes_is_said_before_anything_runs(tmp_path):
    config = typed(default_config())
    given = default_config()
    given.conscience.verdicts = "chance"
    by_chance = typed(given)
    arms = [Arm("chance", by_chance), Arm("conscience", config)]
    with pytest.raises(UserError, match="chance draws verdicts at the rates of the arm conscience"):
        check_arms(arms, tmp_path)
    check_arms(arms[::-1], tmp_path)
