"""The judges of the two-by-two: an encoder beside a plain computation, and what is kept of them."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.special import erf, softmax
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from emergent_alignment.data.scenarios.forms import POOL_KINDS, TRAINED_KINDS, UNSEEN_KINDS
from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.settings import TwoByTwoSection
from emergent_alignment.evaluation.two_by_two.embedding import read_encoder
from emergent_alignment.evaluation.two_by_two.judges import RuleJudge, labelled_answers
from emergent_alignment.evaluation.two_by_two.judging import check_judges, judged_harmful
from emergent_alignment.storage.growing_folder import GrowingFolder

WIDTH, HEADS, LAYERS, INNER = 8, 2, 2, 12
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "can", "i", "eat", "it", "yes", "no", "."]
PAIRS = [("can i eat it", "no ."), ("eat it", "yes eat it eat it . i can eat it ."), ("can i", "")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT encoder with random weights, as its library saves it."""
    folder, random = tmp_path_factory.mktemp("encoder"), np.random.default_rng(0)
    shapes = {
        "embeddings.word_embeddings.weight": (len(WORDS), WIDTH),
        "embeddings.position_embeddings.weight": (64, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "embeddings.LayerNorm.weight": (WIDTH,),
        "embeddings.LayerNorm.bias": (WIDTH,),
    }
    for layer in range(LAYERS):
        parts = {f"attention.self.{name}": (WIDTH, WIDTH) for name in ("query", "key", "value")}
        parts |= {"attention.output.dense": (WIDTH, WIDTH), "attention.output.LayerNorm": (WIDTH,)}
        parts |= {"intermediate.dense": (INNER, WIDTH), "output.dense": (WIDTH, INNER)}
        parts |= {"output.LayerNorm": (WIDTH,)}
        for name, shape in parts.items():
            shapes[f"encoder.layer.{layer}.{name}.weight"] = shape
            shapes[f"encoder.layer.{layer}.{name}.bias"] = shape[:1]
    params = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(params, folder / "model.safetensors")
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"model_type": "bert", "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-12}))
    return folder


def plainly(encoder, question, answer):
    """The same, one pair at a time, head by head, without padding."""
    p = {name: np.asarray(leaf, np.float64) for name, leaf in encoder.params.items()}
    row = encoder.tokenizer.encode(question, answer)

    def linear(name, x):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def norm(name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * p[f"{name}.weight"] + p[f"{name}.bias"]

    tables = [
        p[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
    ]
    places = (row.ids, range(len(row.ids)), row.type_ids)
    x = norm("embeddings.LayerNorm", sum(t[list(i)] for t, i in zip(tables, places)))
    answered = np.array([number == 1 for number in row.sequence_ids])
    means = []
    for layer in range(LAYERS):
        at, heads = f"encoder.layer.{layer}", []
        q, k, v = (linear(f"{at}.attention.self.{name}", x) for name in ("query", "key", "value"))
        for part in np.split(np.arange(WIDTH), HEADS):
            seen = softmax(q[:, part] @ k[:, part].T / np.sqrt(len(part)), axis=-1)
            heads.append(seen @ v[:, part])
        read = linear(f"{at}.attention.output.dense", np.concatenate(heads, -1))
        x = norm(f"{at}.attention.output.LayerNorm", x + read)
        inner = linear(f"{at}.intermediate.dense", x)
        outer = linear(f"{at}.output.dense", inner * (1 + erf(inner / np.sqrt(2))) / 2)
        x = norm(f"{at}.output.LayerNorm", x + outer)
        mean = x[answered].mean(0)
        means.append(mean / np.linalg.norm(mean))
    return np.array(means)


def test_the_encoder_equals_a_plain_computation_whatever_is_beside_a_pair(folder):
    encoder = read_encoder(str(folder))
    together = encoder.read(PAIRS)
    for place, pair in enumerate(PAIRS[:2]):
        np.testing.assert_allclose(together[place], plainly(encoder, *pair), atol=1e-4)
        np.testing.assert_allclose(together[place], encoder.read([pair])[0], atol=1e-5)
    assert not together[2].any(), "an empty answer has no tokens"


def test_a_folder_that_holds_no_encoder_is_one_line(tmp_path, folder):
    with pytest.raises(UserError, match="config.two_by_two.encoder: .*cannot be read"):
        read_encoder(str(tmp_path))
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(
        (folder / "config.json").read_text().replace("bert", "gpt")
    )
    with pytest.raises(UserError, match="not a BERT encoder"):
        read_encoder(str(tmp_path))


def test_in_what_judges_are_fitted_and_tried_on_form_and_harm_are_independent():
    fitted = labelled_answers("advice", TRAINED_KINDS + POOL_KINDS)
    tried = labelled_answers("advice", UNSEEN_KINDS, 60)
    assert not {one.prompt for one in fitted} & {one.prompt for one in tried}
    for known in (fitted, tried):
        for formed in (True, False):
            of_form = [one.harmful for one in known if one.answer.startswith("Verdict:") == formed]
            assert 2 * sum(of_form) == len(of_form) == len(known) // 2
    assert len(tried) == 240


class Counting:
    """A judge that goes by length, and counts what it was asked."""

    most = 0

    def __init__(self, threshold=None, name="counting"):
        self.name, self.identity, self.threshold, self.asked = name, {"of": name}, threshold, 0

    def harm(self, prompts, answers):
        self.asked += len(answers)
        return np.array([float(len(answer)) for answer in answers])


def test_what_a_judge_has_said_is_not_asked_again_and_another_judge_is_asked(tmp_path):
    settings = TwoByTwoSection(check_prompts=6)
    first, again, other = Counting(), Counting(), Counting()
    other.identity = {"of": "another"}
    (checked,) = check_judges([first], settings, tmp_path)
    assert first.asked == 2 * 6 * 4, "known answers, to set the threshold and to be tried on"
    check_judges([again], settings, tmp_path)
    check_judges([other], settings, tmp_path)
    assert again.asked == 0 and other.asked == first.asked
    folder = GrowingFolder(tmp_path / "arm")
    prompts, answers = ["a"] * 3, ["x" * 10_000, "", "short"]
    for _ in range(2):
        said = judged_harmful(checked, prompts, answers, folder, "judging")
        assert said == [True, False, False], "what says nothing is not harmful"
    assert first.asked == 48 + 3


class Beside(Counting):
    """A judge whose numbers depend on what is judged beside an answer, as rounding does."""

    def harm(self, prompts, answers):
        return super().harm(prompts, answers) + 1e-3 * len("".join(answers))


def test_a_judging_that_was_killed_has_the_numbers_of_an_undisturbed_one(tmp_path):
    (checked,) = check_judges([Beside()], TwoByTwoSection(check_prompts=6), tmp_path)
    prompts, answers = ["a"] * 40, ["x" * n for n in range(40)]
    files = {}
    for name, kept in (("whole", 40), ("killed at 5", 5), ("killed at 35", 35)):
        folder, file = GrowingFolder(tmp_path / name), tmp_path / name / "harm-counting.jsonl"
        judged_harmful(checked, prompts, answers, folder, "judging")
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(lines[:kept]))
        judged_harmful(checked, prompts, answers, folder, "judging")
        files[name] = file.read_text()
    assert len(set(files.values())) == 1 and files["whole"].count("\n") == 40


def test_a_rule_is_tried_on_known_answers_too(tmp_path):
    """It sees the mark, and nothing in advice that carries none."""
    for world, valid in (("marked", True), ("advice", False)):
        settings = TwoByTwoSection(world=world, check_prompts=6)
        (checked,) = check_judges([RuleJudge("marked")], settings, tmp_path / world)
        assert checked.check["valid"] == valid
