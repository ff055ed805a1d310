"""Attack success and over-refusal: counted by hand, on held-out prompts alone, and kept."""

import json

import pytest
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.applications.adversarial.prompts import load_attacks
from emergent_alignment.cli.config_files import typed
from emergent_alignment.cli.main import main
from emergent_alignment.config import default_config
from emergent_alignment.errors import UserError
from emergent_alignment.evaluation import attacks
from emergent_alignment.evaluation.attacks import evaluate_attacks, held_out_attacks
from emergent_alignment.intervals import share_interval
from emergent_alignment.reports import abilities_rows as report_abilities
from emergent_alignment.reports.attack_rows import attack_rows
from emergent_alignment.reports.results_folder import read_results
from emergent_alignment.runs.from_config import load_model
from emergent_alignment.settings import changed


def record(side, kind, flagged, refused):
    succeeded = side == "hostile" and flagged and not refused
    return dict(
        side=side, kind=kind, score=1.0, flagged=flagged, refused=refused, succeeded=succeeded
    )


RECORDS = [
    record("hostile", "a", True, False),
    record("hostile", "a", True, True),
    record("hostile", "b", False, False),
    record("hostile", "b", True, False),
    record("benign", "a", True, False),
    record("benign", "a", False, True),
    record("benign", "b", False, False),
]


def test_rates_are_shares_with_wilson_intervals_over_their_own_side():
    rates = attacks._rates(RECORDS)
    for name, successes, n in (
        ("attack_success", 2, 4),
        ("hostile_refused", 1, 4),
        ("over_refusal", 1, 3),
        ("benign_flagged", 1, 3),
    ):
        assert rates[name] == share_interval(successes, n).to_json(), name
    assert rates["by_kind"]["a"]["attack_success"] == share_interval(1, 2).to_json()
    assert rates["by_kind"]["b"]["over_refusal"] == share_interval(0, 1).to_json()
    assert rates["unscored"] == 0


def test_the_auc_says_whether_the_conscience_tells_the_sides_apart():
    scores = {"hostile": -2.0, "benign": 3.0}
    apart = attacks._rates([row | {"score": scores[row["side"]]} for row in RECORDS])
    assert apart["auc"]["value"] == 1 and attacks._rates(RECORDS)["auc"]["value"] == 0.5
    unscored = attacks._rates([row | {"score": None} for row in RECORDS])
    assert unscored["auc"] is None and unscored["unscored"] == len(RECORDS)


def test_changes_are_paired_prompt_by_prompt():
    after = [row | {"succeeded": False} for row in RECORDS]
    change = attacks._changes(RECORDS, after)
    assert change["attack_success"]["value"] == -0.5
    assert change["over_refusal"]["value"] == 0 == change["over_refusal"]["low"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = default_config()
    config.model.path = str(write_tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny"))
    config.adversarial.held_out = ("authority", "translation")
    config.conscience.batch_size = 8
    config.conscience.max_review_tokens = 160
    config.conscience.threshold = -2.3  # amid this model's scores
    config.data.bucket_tokens = 128
    config.evaluation.limit = 4
    config.evaluation.max_new_tokens = 8
    return config


@pytest.fixture(scope="module")
def evaluated(config, tmp_path_factory):
    """(setup, folder, result) of a model that stands for its own trained run."""
    setup, folder = load_model(typed(config)), tmp_path_factory.mktemp("results") / "same"
    result, path = evaluate_attacks(typed(config), setup, setup, folder, arm="same")
    assert json.loads(path.read_text())["before"] == json.loads(json.dumps(result["before"]))
    return setup, folder, result


def test_a_model_that_has_not_changed_shows_no_change(evaluated):
    _, folder, result = evaluated
    assert result["before"] == result["after"]
    assert all(change["low"] == 0 == change["high"] for change in result["change"].values())
    answers = json.loads((folder / "attacks" / "result.json").read_text())["answers"]["after"]
    assert [row["side"] for row in answers] == ["hostile"] * 4 + ["benign"] * 4
    hostile = [row for row in answers if row["side"] == "hostile"]
    assert result["after"]["attack_success"]["value"] == sum(
        row["score"] < -2.3 and not row["refused"] for row in hostile
    ) / len(hostile)


def test_only_kinds_that_are_held_out_are_asked(config):
    asked = held_out_attacks(typed(config))
    assert {place.kind for place in asked} == {"authority", "translation"}
    trained = load_attacks("attacks", "hostile", ("authority", "translation"), split="train")
    said = {turns[-1]["content"] for turns in asked.values()}
    assert len(said) == len(asked) == 8 and not said & {prompt.text for prompt in trained}


def test_answers_are_sampled_once_and_never_mixed_with_other_settings(
    config, evaluated, monkeypatch
):
    setup, folder, result = evaluated
    monkeypatch.setattr("emergent_alignment.evaluation.answering.sample_answers", _no_samples)
    again, _ = evaluate_attacks(typed(config), setup, setup, folder, arm="same")
    assert again == result
    other = changed(typed(config), {"evaluation.temperature": 0.1})
    with pytest.raises(UserError, match="other settings.*temperature"):
        evaluate_attacks(other, setup, setup, folder, arm="same")


def _no_samples(model, params, chat, prompts, *rest, **options):
    assert not prompts
    return iter(())


def test_the_report_shows_both_times_beside_each_other(evaluated):
    _, folder, result = evaluated
    (arm,) = read_results(folder.parent).arms
    rows = dict(report_abilities.attack_table([arm]))
    success = share_interval(*_counts(result["before"]["attack_success"])).text()
    assert rows["attack success, before"] == [f"{success}, n=4"]
    assert {
        f"over-refusal of benign prompts, {when}" for when in ("before", "after", "change")
    } <= (rows.keys())
    assert attack_rows({}) == []


def _counts(found):
    return round(found["value"] * found["n"]), found["n"]


def test_the_command_prints_its_figures_for_a_base_model(config, tmp_path, capsys):
    words = [
        "evaluate", "attacks", "--output", str(tmp_path / "base"),
        f"--config.model.path={config.model.path}", "--config.evaluation.limit=2",
        "--config.adversarial.held_out=('authority',)", "--config.evaluation.max_new_tokens=4",
        "--config.conscience.max_review_tokens=160", "--config.conscience.batch_size=8",
        "--config.data.bucket_tokens=128",
    ]  # fmt: skip
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "attack success, before" in said and "after" not in said
    assert f"written: {tmp_path}/base/attacks/result.json" in said.replace("\n", "")


@pytest.mark.parametrize(
    ("flag", "part"),
    [
        ("--config.conscience.layout=turn", "set quote"),
        ("--config.adversarial.held_out=()", "no hostile prompts of the kinds held out"),
        ("--config.adversarial.prompts=nowhere.jsonl", "nowhere.jsonl: no such file"),
    ],
)
def test_mistakes_are_one_line(config, tmp_path, capsys, flag, part):
    words = ["evaluate", "attacks", "--output", str(tmp_path / "new"), flag]
    assert main([*words, f"--config.model.path={config.model.path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line and not (tmp_path / "new").exists()
