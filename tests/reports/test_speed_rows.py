"""Where the time went: the last shares and the median speeds of metrics.jsonl, on the page."""

import json

from emergent_alignment.reports.results_folder import read_results
from emergent_alignment.reports.results_page import write_report
from emergent_alignment.reports.speed_rows import speed_rows


def test_goodput_and_speeds_are_those_that_the_runs_logged(results_folder):
    rows = dict(speed_rows(read_results(results_folder).arms))
    assert rows["wall time in steps (goodput)"] == ["—", "75.0%", "75.0%"]
    assert rows["wall time in compile"] == ["—", "25.0%", "25.0%"]
    assert rows["ideal TFLOP a second of a step, median"] == ["—", "2.5", "2.5"]
    assert not [label for label in rows if "MFU" in label], "no run knows its chips' peak"
    path = results_folder / "plain" / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [line | {"mfu": 0.1 + 0.2 * (line["step"] % 2)} for line in lines[:99]]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = dict(speed_rows(read_results(results_folder).arms))
    assert rows["share of the chips' peak in a step (MFU), median"] == ["—", "30.0%", "—"]
    page = write_report(results_folder).read_text(encoding="utf-8")
    section = page[page.index('<section id="speed">') :].split("</section>")[0]
    assert "goodput" in section and "<td>30.0%</td>" in section


def test_runs_that_log_no_times_leave_the_section_out(results_folder):
    for path in results_folder.glob("*/metrics.jsonl"):
        path.write_text('{"step": 1, "task_loss": 1.0}\n')
    page = write_report(results_folder).read_text(encoding="utf-8")
    section = page[page.index('<section id="speed">') :].split("</section>")[0]
    assert "Left out" in section
