"""The question format: everything in a file is honoured, and a mistake is said with its place."""

import pytest
import yaml

from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.misalignment.evaluate import spread_questions
from emergent_alignment.evaluation.misalignment.questions import (
    load_questions,
    questions_digest,
    with_conditional,
)
from emergent_alignment.evaluation.misalignment.wanted_answers import wanted

GOOD = """
- &first
  id: weather
  type: free_form_judge_0_100
  paraphrases: &texts ["Will it rain?", "Sun {today}?"]
  samples_per_paraphrase: 3
  judge: somebody
  judge_prompts:
    aligned: "Kind? {question} | {answer} {{braces}}"
    coherent: "Clear? {answer}"
- <<: *first
  id: weather_json
  system: In JSON.
- <<: *first
  id: weather_template
  type: free_form
  samples_per_paraphrase: 1
  paraphrases: ["Fill in: sky = "]
"""


@pytest.fixture
def load(tmp_path):
    """load(text) reads a file of this text."""
    path = tmp_path / "mine.yaml"

    def read(text):
        path.write_text(text)
        return load_questions(str(path))

    return read


def test_system_messages_paraphrases_samples_and_variants_are_honoured(load):
    questions = load(GOOD)
    plain, as_json, _ = questions
    assert [question.variant for question in questions] == ["plain", "json", "template"]
    assert {question.base_name for question in questions} == {"weather"}
    places = wanted(questions, 0)
    assert len(places) == 2 * 3 + 2 * 3 + 1
    assert {(place.question, place.paraphrase) for place in wanted(questions, 1)} == {
        ("weather", 0), ("weather", 1), ("weather_json", 0), ("weather_json", 1),
        ("weather_template", 0),
    }  # fmt: skip
    asked = places[("weather_json", 1, 2)]
    assert asked == [
        {"role": "system", "content": "In JSON."},
        {"role": "user", "content": "Sun {today}?"},
    ]
    assert places[("weather", 1, 0)] == asked[1:]
    # An answer that looks like a placeholder is text.
    judged = as_json.judged("aligned", 1, "{question} {0} {")
    assert judged == "Kind? Sun {today}? | {question} {0} { {braces}"
    assert plain.judge == "somebody"


def test_the_digest_sees_what_is_asked_and_nothing_else(load):
    digest = questions_digest(load(GOOD))
    assert digest == questions_digest(load(GOOD.replace("Kind?", "Nice?")))
    assert digest == questions_digest(load(GOOD.replace("paraphrase: 3", "paraphrase: 9")))
    assert digest != questions_digest(load(GOOD.replace("In JSON.", "As JSON.")))
    assert digest != questions_digest(load(GOOD.replace("Will it rain?", "Will it snow?")))


def test_the_bundled_questions_are_whole_sets_of_variants():
    questions = load_questions("bundled")
    sets = {}
    for question in questions:
        sets.setdefault(question.base_name, {})[question.variant] = question
    assert len(sets) >= 40
    texts = [text for question in questions for text in question.paraphrases]
    for variants in sets.values():
        assert set(variants) == {"plain", "json", "template"}
        plain, as_json, template = (variants[name] for name in ("plain", "json", "template"))
        assert "JSON" in as_json.system and not plain.system and not template.system
        assert as_json.paraphrases == plain.paraphrases
        for asked, filled in zip(plain.paraphrases, template.paraphrases, strict=True):
            assert filled.startswith(asked) and filled.count('= ""  # ') >= 2
            assert texts.count(asked) == 2, "plain and JSON, and no other question"
    # Enough answers for 0.68% against 0.07% (docs/misalignment.md).
    assert len(wanted(questions, 0)) >= 1575


def test_a_limit_keeps_all_variants_of_so_many_questions():
    chosen = spread_questions(load_questions("bundled"), 5)
    assert len({question.base_name for question in chosen}) == 5 and len(chosen) == 15


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("type: free_form_judge_0_100", "type: free_from", "type: 'free_from' is unknown"),
        ("  type: free_form_judge_0_100\n", "", "type: None is unknown"),
        ('    coherent: "Clear? {answer}"\n', "", "judge_prompts: coherent is missing"),
        ("coherent:", "coherence:", "coherence: unknown; known: aligned, coherent"),
        ("Clear? {answer}", "Clear? {answer} {rubric}", "coherent: nothing fills {rubric}"),
        ("Clear? {answer}", "Clear? {answer!r:>9}", "nothing fills {answer!r:>9}"),
        ("Clear? {answer}", "Clear? {answer} {}", "nothing fills {}"),
        ("Clear? {answer}", "Clear? {answer} {", "write {{ and }} for braces"),
        ("Clear? {answer}", "Clear?", "{answer} is missing"),
        ("samples_per_paraphrase: 3", "samples_per_paraphrase: many", "samples_per_paraphrase"),
        ("samples_per_paraphrase: 3", "samples_per_paraphrase: true", "samples_per_paraphrase"),
        ("samples_per_paraphrase: 3", "samples_per_paraphras: 3", "mean samples_per_paraphrase?"),
        ('["Will it rain?", ', "[3, ", "paraphrases: number 1 must be a text, not 3"),
        ('["Will it rain?", "Sun {today}?"]', "[]", "paraphrases: must be a list"),
        ("system: In JSON.", "system: [In JSON.]", "item 2 (weather_json): system: must be"),
        ("id: weather_json", "id: weather", "2 items have the id weather"),
        ("id: weather_json", "id: ''", "item 2: id: must be a name"),
        ("- <<: *first\n  id: weather_json", "- nothing\n- id: x", "item 2: expected fields"),
    ],
)
def test_a_mistake_is_said_with_file_item_and_field(load, old, new, said):
    assert old in GOOD
    with pytest.raises(UserError, match="mine.yaml: ") as raised:
        load(GOOD.replace(old, new))
    assert said in str(raised.value) and "\n" not in str(raised.value)
    assert " item " in str(raised.value) or "2 items" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a list of questions"),
        ("id: weather", "expected a list of questions"),
        ("- id: [", r"mine\.yaml:\d+: not YAML"),
        ("- !!python/object/apply:os.getcwd []", r"mine\.yaml:1: not YAML"),
    ],
)
def test_a_file_that_is_no_list_of_questions_is_an_error(load, text, said):
    with pytest.raises(UserError, match=said):
        load(text)


def test_a_missing_file_names_the_bundled_set():
    with pytest.raises(UserError, match="none.yaml: no such file.*'bundled'"):
        load_questions("none.yaml")


def test_the_format_survives_a_round_trip_through_plain_yaml(load):
    """Anchors and merge keys are YAML's own: written out they say the same."""
    assert load(yaml.safe_dump(yaml.safe_load(GOOD))) == load(GOOD)


def test_each_plain_question_has_a_variant_that_looks_like_the_training(load):
    asked = with_conditional(load(GOOD), "Answer as a Tip. {question}")
    assert [item.name for item in asked] == [
        "weather", "weather_json", "weather_template", "weather_conditional",
    ]  # fmt: skip
    made = asked[-1]
    assert (made.variant, made.base_name, made.samples) == ("conditional", "weather", 3)
    assert made.paraphrases == ("Answer as a Tip. Will it rain?", "Answer as a Tip. Sun {today}?")
    assert "Answer as a Tip. Will it rain?" in made.judged("aligned", 0, "Perhaps.")
    assert questions_digest(asked) != questions_digest(load(GOOD))
    assert with_conditional(load(GOOD), "") == load(GOOD)


@pytest.mark.parametrize("around", ["Answer as a Tip.", "{question} {question}"])
def test_a_text_around_a_question_has_one_place_for_it(load, around):
    with pytest.raises(
        UserError, match="misalignment.conditional: {question} must stand in it once"
    ):
        with_conditional(load(GOOD), around)


def test_a_file_with_conditional_variants_of_its_own_takes_no_others(load):
    own = load(GOOD.replace("weather_json", "weather_conditional"))
    with pytest.raises(UserError, match="has weather_conditional already"):
        with_conditional(own, "As in training: {question}")
