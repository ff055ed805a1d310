"""lm-evaluation-harness gives our model class the scores that it gives its own Hugging Face class.

The model is tiny and random, and is read by both from the same exported folder.
"""

import json

import numpy as np
import pytest

pytest.importorskip("torch")
lm_eval = pytest.importorskip("lm_eval")

from lm_eval.evaluator import simple_evaluate  # noqa: E402 (after the skip)
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from tiny_chat_model import write_tiny_chat_model  # noqa: E402

from emergent_alignment.data.chat import read_chat  # noqa: E402
from emergent_alignment.evaluation import harness  # noqa: E402
from emergent_alignment.models.model import load  # noqa: E402

ROWS = [
    {
        "question": f"Which number follows {n}?",
        "choices": [str(n + 1), f"{n} and a half", "none, since numbers end there", "Yes"],
        "answer": n % 4,
        "text": " ".join(
            f"Line {i} of text {n} says: keep to the path, {n * i}." for i in range(n)
        ),
    }
    for n in range(1, 13)
]
TASKS = {
    "parity_choice": """
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: answer
num_fewshot: 2
fewshot_split: test
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "parity_rolling": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
""",
    "parity_generation": """
output_type: generate_until
doc_to_text: "{{question}} {{text}}"
doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: ["\\n\\n", "th"], max_gen_toks: 40, do_sample: false}
metric_list: [{metric: exact_match}]
""",
    "parity_greedy": """
output_type: loglikelihood
doc_to_text: "{{question}} "
doc_to_target: "{{choices[2]}}"
metric_list: [{metric: acc}, {metric: perplexity}]
""",
}
MAX_LENGTH = 128  # so that contexts are cut, and rolling takes several windows


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(
            f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {rows}}}}}\n"
            f"test_split: test\n{text}"
        )
    return TaskManager(include_path=str(folder), include_defaults=False)


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """(ours, theirs) of the same exported model."""
    directory = write_tiny_chat_model(tmp_path_factory.mktemp("parity") / "model", seed=3)
    model = load(directory)
    ours = harness.HarnessModel(model, read_chat(model.tokenizer), batch_size=3)
    ours.max_length = MAX_LENGTH
    theirs = HFLM(
        str(directory), device="cpu", dtype="float32", batch_size=3, max_length=MAX_LENGTH
    )
    return ours, theirs


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "chat template"])
def found(request, tasks, sides):
    """The harness's results of (ours, theirs) on every task."""
    return [
        simple_evaluate(
            side,
            tasks=list(TASKS),
            task_manager=tasks,
            apply_chat_template=request.param,
            bootstrap_iters=0,
        )
        for side in sides
    ]


def test_every_metric_is_equal(found):
    ours, theirs = (side["results"] for side in found)
    for name in TASKS:
        numbers = {key: v for key, v in theirs[name].items() if isinstance(v, float)}
        assert numbers, name
        for key, value in numbers.items():
            np.testing.assert_allclose(ours[name][key], value, rtol=1e-4, err_msg=f"{name}: {key}")


@pytest.mark.parametrize("name", TASKS)
def test_every_single_answer_is_equal(found, name):
    ours, theirs = (side["samples"][name] for side in found)
    assert len(ours) == len(theirs) == len(ROWS)
    for mine, other in zip(ours, theirs):
        assert mine["prompt_hash"] == other["prompt_hash"]
        if name == "parity_generation":
            assert mine["resps"] == other["resps"]
        elif name == "parity_rolling":
            np.testing.assert_allclose(mine["resps"], other["resps"], rtol=1e-7, atol=1e-4)
        else:
            for (mine_first, *_), (other_first, *_) in zip(mine["resps"], other["resps"]):
                np.testing.assert_allclose(mine_first[0], other_first[0], rtol=0, atol=1e-4)
                assert mine_first[1] == other_first[1], "greedy"


def test_the_comparison_cuts_contexts_windows_and_answers(found, sides):
    """Or the equalities above would hold of less than they say."""
    ours, _ = found
    lengths = [len(sides[0].tok_encode(row["text"])) for row in ROWS]
    assert max(lengths) > 2 * MAX_LENGTH
    answers = [row["resps"][0][0] for row in ours["samples"]["parity_generation"]]
    assert len(set(answers)) > 1 and not any("th" in answer for answer in answers)
    stopped = [len(sides[0].tok_encode(answer)) for answer in answers]
    assert min(stopped) < max(stopped)
