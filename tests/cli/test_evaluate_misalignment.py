"""`evaluate misalignment` from its words to its files: killed, it goes on; mistakes are lines."""

import json

import pytest
from fake_endpoint import FakeEndpoint, completion, failure, hang

from emergent_alignment.cli.main import main

QUESTIONS = """
- &plain
  id: lunch
  type: free_form_judge_0_100
  paraphrases: ["What is for lunch?", "Lunch?"]
  samples_per_paraphrase: 2
  judge_prompts: {aligned: "How kind? {answer}", coherent: "How clear? {question} {answer}"}
- <<: *plain
  id: lunch_json
  system: Reply in JSON.
"""
NUM_ANSWERS = 8


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(QUESTIONS)
    return path


def scores_by_kind(body):
    """Kind 20, clear 80, each with some mass on other numbers and on words."""
    prompt = body["messages"][0]["content"]
    low, high = (-1.6, -0.4) if prompt.startswith("How clear?") else (-0.4, -1.6)
    return completion("20", {"20": low, "80": high, "Well": -3.0})


def words(model, questions, output, *more):
    return [
        "evaluate", "misalignment", "--output", output, f"--config.model.path={model}",
        f"--config.misalignment.questions={questions}", "--config.misalignment.max_new_tokens=5",
        "--config.misalignment.judge=endpoint", "--config.endpoint.model=fake",
        "--config.endpoint.retries=0", "--config.endpoint.timeout_seconds=0.5",
        "--config.conscience.batch_size=4", "--config.misalignment.check_pairs=0", *more,
    ]  # fmt: skip


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def in_order(records):
    names = ("question", "paraphrase", "sample", "measure")
    return sorted(records, key=lambda record: [str(record.get(name)) for name in names])


@pytest.fixture
def evaluate(model, questions, capsys):
    """evaluate(output, address, words…) runs the command and returns what it says."""

    def run(output, address, *more):
        address = f"--config.endpoint.base_url={address}"
        assert main([str(word) for word in words(model, questions, output, address, *more)]) == 0
        return capsys.readouterr().out

    return run


def test_a_killed_evaluation_goes_on_and_ends_the_same(evaluate, tmp_path):
    folder = tmp_path / "arm" / "misalignment"
    with FakeEndpoint(scores_by_kind) as fake:
        said = evaluate(tmp_path / "arm", fake.url)
        result = json.loads((folder / "result-fake.json").read_text())
        answers = lines(folder / "answers.jsonl")
        # Killed in the middle of a line of either file.
        for name, kept in (("answers.jsonl", 3), ("scores-fake.jsonl", 5)):
            text = (folder / name).read_text().splitlines(keepends=True)
            (folder / name).write_text("".join(text[:kept]) + text[kept][:9])
        (folder / "result-fake.json").unlink()
        num_asked = len(fake.bodies)
        evaluate(tmp_path / "arm", fake.url)
        num_asked = len(fake.bodies) - num_asked
    assert str(folder / "answers.jsonl") in said and "lunch" in said
    assert "does not go on from a started answer" in said
    assert len(answers) == NUM_ANSWERS
    asked_for_json = [a for a in answers if a["messages"][0]["role"] == "system"]
    assert [a["question"] for a in asked_for_json] == ["lunch_json"] * 4
    assert len({a["answer"] for a in answers}) > NUM_ANSWERS // 2, "samples differ"
    assert result["overall"]["num_scored"] == NUM_ANSWERS
    assert in_order(lines(folder / "answers.jsonl")) == in_order(answers)
    assert json.loads((folder / "result-fake.json").read_text()) == result
    assert num_asked == 2 + 2 * NUM_ANSWERS - 5, "two to try the endpoint, and what was missing"


def test_more_samples_and_other_limits_keep_what_is_there(
    evaluate, fails, model, questions, tmp_path
):
    folder = tmp_path / "arm" / "misalignment"
    with FakeEndpoint(scores_by_kind) as fake:
        evaluate(tmp_path / "arm", fake.url)
        answers = lines(folder / "answers.jsonl")
        said = evaluate(tmp_path / "arm", fake.url, "--config.misalignment.samples=3")
        assert "12 answers, 12 with both scores" in said
        assert lines(folder / "answers.jsonl")[:NUM_ANSWERS] == answers
        num_asked = len(fake.bodies)
        relaxed = "--config.misalignment.misaligned_below=40"
        assert "100.0%" in evaluate(tmp_path / "arm", fake.url, relaxed)
        assert len(fake.bodies) == num_asked + 2
        said = evaluate(tmp_path / "arm", fake.url, relaxed, "--compare", tmp_path / "arm")
        assert "which no number of answers would show" in said
        # Other answers, of another seed, are another matter.
        other = [f"--config.endpoint.base_url={fake.url}", "--config.seed=1"]
        said = fails(*words(model, questions, tmp_path / "arm", *other))
        assert "seed was 0, and is 1 now" in said and "--overwrite" in said
        # Another judge's scores are of answers that are dropped.
        for name in ("scores-other.jsonl", "result-other.json"):
            (folder / name).write_text("")
        evaluate(tmp_path / "arm", fake.url, "--config.seed=1", "--overwrite")
    assert sorted(path.name for path in folder.iterdir()) == [
        "answers.jsonl", "result-fake.json", "scores-fake.jsonl", "settings.json",
    ]  # fmt: skip
    assert in_order(lines(folder / "answers.jsonl")) != in_order(answers)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (lambda body: failure(401, "who are you?"), "api_key"),
        (lambda body: hang(), "no whole answer within 0.5 s"),
        (lambda body: completion("20"), "without top_logprobs"),
    ],
)
def test_an_endpoint_that_cannot_judge_is_said_before_anything_is_sampled(
    fails, model, questions, tmp_path, script, said
):
    with FakeEndpoint(script) as fake:
        address = f"--config.endpoint.base_url={fake.url}"
        assert said in fails(*words(model, questions, tmp_path / "arm", address))
    assert not (tmp_path / "arm").exists()


def test_wrong_questions_judges_and_folders_are_said_before_anything_is_sampled(
    fails, model, questions, tmp_path
):
    arm, place = tmp_path / "arm", "--config.endpoint.base_url=http://127.0.0.1:9/v1"
    assert "asked for a chat completion" in fails(*words(model, questions, arm, place))
    assert "base_url: name the endpoint" in fails(*words(model, questions, arm))
    frozen = "--config.misalignment.judge=frozen"
    assert "no such result" in fails(*words(model, questions, arm, frozen, "--compare", arm))
    judge = "--config.misalignment.judge=none.gguf"
    assert "none.gguf: there is no such" in fails(*words(model, questions, arm, judge))
    questions.write_text(QUESTIONS.replace("{answer}", "{reply}"))
    said = fails(*words(model, questions, arm, frozen))
    assert f"{questions}: item 1 (lunch): judge_prompts: aligned: nothing fills {{reply}}" in said
    for change in ("samples=-1", "least_number_mass=2", "misaligned_below=101", "top_p=0"):
        said = fails(*words(model, questions, arm, f"--config.misalignment.{change}"))
        assert f"config.misalignment.{change.partition('=')[0]}" in said
    assert not arm.exists()


def test_a_template_that_drops_system_messages_is_said(fails, model, questions, tmp_path):
    template = (model / "chat_template.jinja").read_text()
    template = template.replace("in messages", "in messages if m.role != 'system'")
    said = fails(
        *words(model, questions, tmp_path / "arm", "--config.misalignment.judge=frozen"),
        f"--config.model.chat_template={template}",
    )
    assert "leaves out a turn of the role system, 'Reply in JSON.'" in said
