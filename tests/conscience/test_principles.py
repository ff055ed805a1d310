"""A constitution: a critique names one principle, drawn for its row, and the journal says which."""

from dataclasses import replace

import fake_endpoint as fake
import numpy as np
import pytest
from fake_endpoint import FakeEndpoint, is_review
from tiny_chat_model import write_tiny_chat_model
from tiny_runs import tiny_run_config

from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.cli.config_files import typed
from emergent_alignment.conscience.endpoint_hearing import EndpointReviewer
from emergent_alignment.conscience.frozen_hearing import FrozenReviewer
from emergent_alignment.conscience.journal import read_journal
from emergent_alignment.conscience.journal_records import journal_record
from emergent_alignment.conscience.pairs import review_and_revise
from emergent_alignment.conscience.principles import drawn_principles, read_constitution
from emergent_alignment.conscience.question import QUESTIONS, critique_request
from emergent_alignment.conscience.reader import Reader
from emergent_alignment.conscience.review import ReviewSettings, reader_of
from emergent_alignment.conscience.settings import ConscienceSettings
from emergent_alignment.data.tokenized import tokenize
from emergent_alignment.errors import UserError
from emergent_alignment.generation.endpoint import Endpoint
from emergent_alignment.generation.text import Answer, given_answer
from emergent_alignment.randomness import NO_STEP, Draws, Purpose
from emergent_alignment.runs.from_config import load_model, training_examples
from emergent_alignment.settings import changed, check_settings

BUNDLED = read_constitution("bundled")
DRAWS = Draws(3, Purpose.TARGET_CORRECTIONS)
SETTINGS = ConscienceSettings(
    ReviewSettings(QUESTIONS["advice"]),
    threshold=99.0,
    chain=("rewrite",),
    critique=True,
    principles=BUNDLED,
    max_new_tokens=6,
    keep_truncated=True,
)
SUBJECTS = "a cup of tea", "milk", "rain"
PROMPTS = [[{"role": "user", "content": f"What about {subject}?"}] for subject in SUBJECTS]


def names(principles):
    return [principle.name for principle in principles]


def test_the_bundled_ones_are_as_many_rules_with_names_of_their_own():
    assert len(BUNDLED) == len({one.name for one in BUNDLED}) == 10
    assert read_constitution("") == ()


def test_a_row_s_principle_is_drawn_by_its_id_whatever_rows_are_beside_it():
    drawn = names(drawn_principles(BUNDLED, DRAWS, range(400)))
    assert names(drawn_principles(BUNDLED, DRAWS, [7, 399, 7])) == [drawn[7], drawn[399], drawn[7]]
    counts = [drawn.count(one.name) for one in BUNDLED]
    assert min(counts) > 20 and max(counts) < 65, "each is as likely as any other"
    for other in (replace(DRAWS, seed=4), replace(DRAWS, step=NO_STEP - 1)):
        anew = names(drawn_principles(BUNDLED, other, range(400)))
        assert np.mean([a == b for a, b in zip(drawn, anew)]) < 0.2, "another seed or step"
    nothing = drawn_principles((), DRAWS, [1, 2])
    assert [(one.name, one.text) for one in nothing] == [("", "")] * 2
    unforeseeable = Draws(None, Purpose.DRAFT_CORRECTIONS)
    assert len(set(names(drawn_principles(BUNDLED, unforeseeable, range(99))))) > 3


def reviewed_by(reviewer, answers, row_ids):
    return review_and_revise(reviewer, SETTINGS, PROMPTS, answers, DRAWS, row_ids=row_ids)


@pytest.mark.parametrize("layout", ["quote", "turn"])
def test_the_frozen_copy_is_asked_by_the_principle_that_the_journal_names(
    model, chat, layout, monkeypatch
):
    asked, rows_of = [], Reader.rows

    def rows(self, case, requests, needed=None):
        asked.append(requests)
        return rows_of(self, case, requests, needed)

    monkeypatch.setattr(Reader, "rows", rows)
    answers = [given_answer(chat, text) for text in ("Boil it.", "Drink it warm.", "Go out.")]
    reviewer = FrozenReviewer(reader_of(model, chat, replace(SETTINGS.review, layout=layout)))
    ids = [5, 11, 12]
    found = reviewed_by(reviewer, answers, row_ids=ids)
    expected = drawn_principles(BUNDLED, DRAWS, ids)
    assert [critique_request(one.text) for one in expected] in asked
    for row, principle in zip(found, expected):
        record = journal_record(row, step=0, place=0, row=0)
        assert record["principle"] == principle.name
    review = replace(SETTINGS.review, layout=layout, batch_size=1)
    apart = reviewed_by(FrozenReviewer(reader_of(model, chat, review)), answers, row_ids=ids)
    assert [row.principle for row in apart] == names(expected), "also where short rows come first"


def test_an_endpoint_is_asked_likewise_and_only_of_what_is_corrected():
    texts = {"Tea is fine.": "", "It harms you.": "", "Rain harms.": ""}

    def script(body):
        said = body["messages"][-1]["content"]
        answer = said.rpartition("<answer>")[2].partition("</answer>")[0].strip()
        if is_review(body):
            return fake.completion("No", fake.NO if "harms" in answer else fake.YES)
        if "Rewrite" not in said:
            texts[answer] = said
        return fake.completion("Be kind.")

    with FakeEndpoint(script) as backend:
        reviewer = EndpointReviewer(Endpoint(backend.url, "m", retries=0, timeout_seconds=5.0))
        answers = [Answer([], np.zeros(0, np.float32), text, True) for text in texts]
        settings = replace(SETTINGS, threshold=0.0)
        found = review_and_revise(reviewer, settings, PROMPTS, answers, DRAWS, row_ids=[5, 11, 12])
    drawn = drawn_principles(BUNDLED, DRAWS, [5, 11, 12])
    asked = [one.text in said for one, said in zip(drawn, texts.values())]
    assert asked == [False, True, True]
    assert [row.principle for row in found] == ["", drawn[1].name, drawn[2].name]


@pytest.fixture
def config(tmp_path):
    config = tiny_run_config(write_tiny_chat_model(tmp_path / "model"))
    config.data.limit = 4
    config.training.steps = 1
    config.conscience.update({"gate": "score", "candidate": "target", "on_flagged": "replace"})
    config.conscience.update({"verdicts": "none", "chain": ("rewrite",), "critique": True})
    config.conscience.update({"principles": "bundled", "cache": str(tmp_path / "cache")})
    config.conscience.max_review_tokens = 256
    config.loss.alignment_weight = 0.0
    return config


def test_without_verdicts_every_target_gives_way_to_its_revision(config, tmp_path, monkeypatch):
    from emergent_alignment.runs import step_inputs

    batches, make_batch = [], step_inputs.make_batch

    def made(*arguments, **options):
        batches.append((arguments[1], options))
        return make_batch(*arguments, **options)

    monkeypatch.setattr(step_inputs, "make_batch", made)
    finetune(typed(config), tmp_path / "run")
    records = read_journal(tmp_path / "run" / "journal")
    assert {record["principle"] for record in records} <= set(names(BUNDLED))
    assert {record["scored_by"] for record in records} == {"chance"}
    assert all(record["outcome"].startswith(("revised_rewrite", "dropped_")) for record in records)
    assert not any(record["outcome"] == "dropped_disapproved" for record in records)
    revised = [record for record in records if record["outcome"] == "revised_rewrite"]
    assert revised, "a random model writes something"
    setup = load_model(typed(config))
    targets = [tokenize(one, setup.chat, 48, 48).target for one in training_examples(typed(config))]
    ((learnt, _),) = batches
    assert not any(tokens in targets for tokens in learnt), "no target is learnt as it was"
    assert sum(bool(tokens) for tokens in learnt) == len(revised)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"critique": False}, "config.conscience.principles: a critique names them"),
        ({"chain": ("fresh",)}, "config.conscience.principles: .* let chain have rewrite"),
    ],
)
def test_principles_that_nothing_reads_are_refused(config, changes, said):
    check_settings(typed(config))
    fields = {f"conscience.{name}": value for name, value in changes.items()}
    with pytest.raises(UserError, match=said):
        check_settings(changed(typed(config), fields))


def test_a_chain_that_a_run_decides_may_rewrite_or_not(config, tmp_path):
    """Of given answers auto rewrites; of a policy in training it takes the best of its own."""
    config.conscience.chain = ("auto",)
    check_settings(typed(config))
    config.conscience.update({"candidate": "policy", "on_flagged": "keep"})
    check_settings(typed(config))
    with pytest.raises(UserError, match="config.conscience.principles: .* chain have rewrite"):
        finetune(typed(config), tmp_path / "run")


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "no such file"), ("- {number: 1, name: kind}", "mine.yaml:1: the text is missing")],
)
def test_a_file_that_cannot_be_read_is_one_line_before_anything_is_written(
    config, tmp_path, text, said
):
    config.conscience.principles = str(tmp_path / "mine.yaml")
    if text:
        (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        finetune(typed(config), tmp_path / "run")
    assert not (tmp_path / "run").exists()
