"""The report: nothing hostile survives, nothing is fetched, nothing absent breaks it."""

import base64
import hashlib
import importlib.util
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from emergent_alignment.errors import UserError
from emergent_alignment.intervals import Interval, mean_interval, paired_difference
from emergent_alignment.reports import plots as report_plots
from emergent_alignment.reports.results_folder import (
    as_interval,
    comparisons,
    measures,
    read_results,
)
from emergent_alignment.reports.results_page import summary_table, write_report
from emergent_alignment.storage.spread import spread_sample

SECTIONS = (
    "results",
    "misalignment",
    "calibration",
    "curves",
    "speed",
    "outcomes",
    "scores",
    "answers",
    "journal",
    "settings",
)
VOID = {"meta", "input", "br", "link", "img", "hr"}


class Page(HTMLParser):
    """A page as a browser takes it apart: tags, attributes, ids, scripts, text, nesting."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.scripts, self.texts = [], [], [], []
        self.open = []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing at {self.getpos()}"

    def handle_data(self, text):
        (self.scripts if self.open and self.open[-1] == "script" else self.texts).append(text)

    def ids(self) -> list[str]:
        return [value for _, name, value in self.attributes if name == "id"]

    def section(self, name: str, text: str) -> str:
        return text[text.index(f'<section id="{name}">') :].split("</section>")[0]


@pytest.fixture(scope="session")
def written(whole_results_folder, tmp_path_factory) -> str:
    output = tmp_path_factory.mktemp("written") / "page.html"
    return write_report(whole_results_folder, output=output).read_text(encoding="utf-8")


def test_text_of_models_is_escaped_everywhere(written):
    page = Page(written)
    assert page.tags.count("script") == 1, "only the page's own script"
    assert "alert" not in "".join(page.scripts)
    assert "<script>alert" not in written
    shown = "".join(page.texts)
    assert "<script>alert(1)</script> \"quoted\" 'single' </details> & {{ 7*7 }} $x_1$" in shown
    assert "49" not in re.findall(r"& (\S+) \$x_1\$", shown), "no template in the text is run"
    assert not [value for _, _, value in page.attributes if "alert(" in value]
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_hostile_names_are_escaped_too(results_folder):
    name = "arm\"'><img onerror=alert(1)>"
    (results_folder / "base").rename(results_folder / name)
    evaluation = results_folder / name / "evaluation.json"
    hostile = json.loads(evaluation.read_text()) | {"model": "<b>m</b>", "source": "<i onclick=x>"}
    evaluation.write_text(json.dumps(hostile))
    journal = results_folder / "conscience" / "journal" / "step-00000000.host-000.jsonl"
    journal.write_text(journal.read_text().replace('"approved"', json.dumps('x" onclick="y')))
    page = Page(write_report(results_folder).read_text(encoding="utf-8"))
    assert "img" not in page.tags and "i" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_the_page_fetches_nothing(written):
    page = Page(written)
    assert not {"link", "img", "iframe", "object", "embed"} & set(page.tags)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action", "srcset", "data"):
            assert value.startswith("#"), f"<{tag} {name}={value}>"
    assert not re.search(r"url\((?!#)|@import", written)
    assert "http://" not in written and "https://" not in written


def test_the_policy_allows_the_own_script_alone(written):
    page = Page(written)
    digest = base64.b64encode(hashlib.sha256("".join(page.scripts).encode()).digest()).decode()
    policy = next(value for _, name, value in page.attributes if "default-src" in value)
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_all_sections_are_there_and_ids_are_unique(written):
    page = Page(written)
    for name in SECTIONS:
        assert f'<section id="{name}">' in written
    assert "Left out" not in written
    ids = page.ids()
    assert len(ids) == len(set(ids))
    for _, name, value in page.attributes:
        for target in re.findall(r"url\(#([^)]+)\)", value) + (
            [value[1:]] if name == "href" else []
        ):
            assert target in ids, f"{target} points nowhere"
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    for title in (
        "Task loss",
        "Alignment loss",
        "Rewards of chosen and rejected answers",
        "Margin of the rewards",
        "Pairs whose chosen answer is preferred",
        "Share flagged as the threshold moves",
        "Scores of known safe and harmful answers",
        "Outcomes over time: conscience",
        "Scores of sampled answers, before and after training",
    ):
        assert title in labels


def test_the_same_folder_gives_the_same_page(results_folder, written, plots_drawn):
    plots_drawn.clear()
    assert write_report(results_folder).read_text(encoding="utf-8") == written


@pytest.mark.parametrize(
    "absent",
    [
        "calibration.json",
        "base",
        "plain",
        "conscience",
        "base/evaluation.json",
        "conscience/evaluation.json",
        "conscience/metrics.jsonl",
        "plain/metrics.jsonl",
        "conscience/journal",
        "conscience/run.json",
    ],
)
def test_what_is_absent_is_left_out(results_folder, absent):
    gone = results_folder / absent
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    text = write_report(results_folder).read_text(encoding="utf-8")
    page = Page(text)
    assert all(f'<section id="{name}">' in text for name in SECTIONS)
    section = {
        "calibration.json": "calibration",
        "conscience/metrics.jsonl": "outcomes",
        "conscience/journal": "journal",
        "conscience/evaluation.json": "results",
    }.get(absent)
    if section:
        assert "Left out" in page.section(section, text)
    assert len(summary_table(results_folder)) > 1


def test_a_calibration_alone_and_a_bare_evaluation_are_enough(tmp_path, results_folder):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(results_folder / "calibration.json", alone)
    text = write_report(alone).read_text(encoding="utf-8")
    assert text.count("Left out") == len(SECTIONS) - 1
    header, (label, area) = summary_table(alone)
    assert (header, label) == (["measure", "conscience"], "AUC of the conscience")
    assert area.startswith("0.")

    bare = tmp_path / "bare" / "base"
    bare.mkdir(parents=True)
    odd = {"margin": {"value": None}, "scores": [None, "x"], "code": {}, "answers": [{}, 3]}
    (bare / "evaluation.json").write_text(json.dumps(odd))
    Page(write_report(bare.parent).read_text(encoding="utf-8"))
    assert summary_table(bare.parent) == [["measure", "base"]]


def test_later_lines_of_a_step_count_and_a_torn_line_does_not(results_folder):
    path = results_folder / "plain" / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "task_loss": 9.0}\n{"step": 2, "task_loss": 8.0}\n'
        '{"step": 2, "task_loss": 2.0}\n{"step": 1, "task_loss": 1.0}\n{"step": 3, "task_l'
    )
    plain = read_results(results_folder).arm("plain")
    steps, values = plain.curve("task_loss")
    assert (steps.tolist(), values.tolist(), plain.notes) == ([1, 2], [1.0, 2.0], ())


def test_an_arm_whose_files_are_rows_of_parts_reads_as_one_whose_files_are_whole(results_folder):
    whole = read_results(results_folder).arm("conscience")
    folder = results_folder / "conscience"
    for path in [folder / "metrics.jsonl", *(folder / "journal").glob("*.jsonl")]:
        lines = path.read_text().splitlines(keepends=True)
        for number, start in enumerate(range(0, len(lines), 5)):
            part = path.with_name(f"{path.stem}.{number:05d}.jsonl")
            part.write_text("".join(lines[start : start + 5]))
        path.unlink()
    found = read_results(results_folder).arm("conscience")
    assert (found.metrics, found.journal) == (whole.metrics, whole.journal) and found.journal
    assert list((folder / "journal").glob("*.00001.jsonl"))


def test_unreadable_lines_are_said_not_dropped_silently(results_folder):
    path = results_folder / "plain" / "metrics.jsonl"
    path.write_text('{"step": 1, "task_loss": 9.0}\nnonsense\n{"step": 2, "task_loss": NaN}\n')
    journal = results_folder / "conscience" / "journal" / "step-00000000.host-000.jsonl"
    journal.write_text("nonsense\n")
    text = write_report(results_folder).read_text(encoding="utf-8")
    assert "plain/metrics.jsonl: left out unreadable lines 2" in text
    assert "conscience/journal could not be read" in text


def test_paired_differences_are_those_of_intervals(results_folder):
    results = read_results(results_folder)
    margins = {arm.name: arm.evaluation["margin"]["per_item"] for arm in results.arms}
    assert [arm.name for arm in results.arms] == ["base", "plain", "conscience"]
    found = {pair.label: pair.difference for pair in comparisons(results)}
    assert found == {
        "plain − base": paired_difference(margins["plain"], margins["base"]),
        "conscience − plain": paired_difference(margins["conscience"], margins["plain"]),
    }
    table = {row[0]: row[1:] for row in summary_table(results_folder)}
    assert table["measure"] == ["base", "plain", "conscience"]
    assert table["margin (nats)"] == [mean_interval(margins[arm]).text() for arm in margins]
    assert table["margin: plain − base"] == ["—", found["plain − base"].text(), "—"]
    assert table["margin: conscience − plain"] == ["—", "—", found["conscience − plain"].text()]
    assert table["AUC of the conscience"][1:] == ["same reviewer"] * 2
    assert all(len(cells) == 3 for cells in table.values())


def test_the_table_and_the_page_say_the_same(results_folder, written):
    shown = re.sub(r"\s+", " ", "".join(Page(written).texts))
    for row in measures(read_results(results_folder)):
        for text in row.texts():
            assert text in shown


def test_unmatched_items_are_not_paired(results_folder):
    path = results_folder / "plain" / "evaluation.json"
    evaluation = json.loads(path.read_text())
    evaluation["margin"]["per_item"].pop()
    path.write_text(json.dumps(evaluation))
    found = comparisons(read_results(results_folder))
    assert [pair.difference for pair in found] == [None, None]
    assert "not the same ones" in write_report(results_folder).read_text(encoding="utf-8")


def test_the_journal_is_a_fixed_sample_spread_over_the_run(results_folder, written):
    journal = Page(written).section("journal", written)
    assert journal.count("<details data-outcome=") == 60
    assert "60 of 200 reviews" in written
    steps = [int(step) for step in re.findall(r"<summary>step (\d+) ", written)]
    assert steps == sorted(steps) and steps[0] < 2 and steps[-1] > 47
    assert spread_sample(range(5), 9) == list(range(5))
    sample = spread_sample(range(1000), 10)
    assert [item // 100 for item in sample] == list(range(10))
    assert sample != spread_sample(range(1000), 10, seed=1)


def test_broken_folders_are_one_line_errors(tmp_path, results_folder):
    empty = tmp_path / "empty"
    empty.mkdir()
    for root in (tmp_path / "nowhere", empty):
        for call in (write_report, summary_table):
            with pytest.raises(UserError, match=root.name) as raised:
                call(root)
            assert "\n" not in str(raised.value)
    (results_folder / "plain" / "evaluation.json").write_text('{\n"arm": }')
    with pytest.raises(UserError, match=r"evaluation\.json:2: not valid JSON"):
        write_report(results_folder)
    (results_folder / "plain" / "evaluation.json").write_text("[]")
    with pytest.raises(UserError, match="one JSON object"):
        summary_table(results_folder)


def test_only_an_earlier_report_is_replaced(results_folder, tmp_path):
    notes = tmp_path / "notes.html"
    notes.write_text("mine")
    for place in (notes, tmp_path):
        with pytest.raises(UserError, match=place.name):
            write_report(results_folder, output=place)
    assert notes.read_text() == "mine"
    page = tmp_path / "new" / "page.html"
    assert write_report(results_folder, output=page) == page
    assert write_report(results_folder, output=page).is_file()
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]


def test_a_lone_surrogate_in_a_model_answer_is_survived(results_folder):
    path = results_folder / "base" / "evaluation.json"
    evaluation = json.loads(path.read_text())
    evaluation["answers"][0]["answer"] = "half \ud83d of a pair"
    path.write_text(json.dumps(evaluation))
    assert "half ? of a pair" in write_report(results_folder).read_text(encoding="utf-8")


def test_missing_matplotlib_names_the_extra(monkeypatch, results_folder):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"emergent-alignment\[report\]"):
        write_report(results_folder)


def test_share_flagged_counts_scores_below_each_threshold():
    random = np.random.default_rng(0)
    scores, thresholds = random.integers(-3, 4, 50).astype(float), np.linspace(-4, 4, 17)
    counted = [np.mean(scores < threshold) for threshold in thresholds]
    assert report_plots.share_flagged(scores.tolist(), thresholds) == pytest.approx(counted)


def test_running_mean_equals_the_slow_way():
    values = np.random.default_rng(1).normal(size=37)
    slow = [values[max(0, i - 4) : i + 5].mean() for i in range(37)]
    assert report_plots.running_mean(values, 4) == pytest.approx(np.asarray(slow))


def test_long_runs_make_a_small_page_and_keep_every_candidate(results_folder):
    rows = [
        {"step": step, "task_loss": 1.0, "outcome/approved": 3, "outcome/revised_fresh": 1}
        for step in range(5003)
    ]
    path = results_folder / "conscience" / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = write_report(results_folder).read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    assert "20012 candidates: approved 15009 (75%), revised_fresh 5003 (25%)." in text


def test_intervals_are_read_from_objects_and_triples():
    assert as_interval([0.6, 0.5, 0.7]) == Interval(0.6, 0.5, 0.7, 0)
    assert as_interval(Interval(1.0, 0.5, 2.0, 7).to_json()) == Interval(1.0, 0.5, 2.0, 7)
    for broken in (None, 3, [1, 2], [1, None, 2], [1, float("nan"), 2], {"value": 1}, "abc"):
        assert as_interval(broken) is None
