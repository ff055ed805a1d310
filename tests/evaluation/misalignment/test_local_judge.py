"""The expectation over a judge's number, against enumeration without tree, cache or batches."""

import re
from dataclasses import replace

import jax
import numpy as np
import pytest
from tiny_chat_model import SPECIAL, tiny_chat_config
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from emergent_alignment.data.chat import read_chat
from emergent_alignment.evaluation.misalignment.judging import Judgement, reason_of
from emergent_alignment.evaluation.misalignment.local_judge import LocalJudge
from emergent_alignment.evaluation.misalignment.numerals import number_in
from emergent_alignment.models.model import Model, random_params

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{% endif %}"
)
NUMBERS = [str(number) for number in range(10, 101)]
EXTRA_PIECES = {
    "a token for each digit": [],
    "a token for each number": [*NUMBERS, "00", "5%", "1st", "007"],
    "numbers with the space before them": [
        *(f"Ġ{number}" for number in [*range(10), *NUMBERS]), "25", "Ġ00", "Ġ7th",
    ],
}  # fmt: skip
PROMPTS = ["How good?", "Rate: Yes", "7?"]
WIDTH, ROWS = 24, 512


def tokenizer_with(extra_pieces):
    """All bytes, and more tokens that encoding never gives but decoding knows."""
    pieces = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *extra_pieces]
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    built = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    built.chat_template = TEMPLATE
    return built


@pytest.fixture(scope="module")
def params():
    """Spread enough that numbers differ."""
    return jax.tree.map(lambda leaf: leaf * 4, random_params(tiny_chat_config(), 3))


def judge_of(params, kind, **changes):
    tokenizer = tokenizer_with(EXTRA_PIECES[kind])
    model = Model(tiny_chat_config(), tokenizer, params, source="tiny")
    settings = {"least_mass": 0.0, "batch_size": 4} | changes
    return LocalJudge("tiny", model, read_chat(tokenizer), **settings)


@pytest.fixture(scope="module")
def next_token_chances(params):
    """rows -> float64[rows, vocabulary], by whole forward passes of one shape."""

    @jax.jit
    def of_part(model_params, rows, last):
        model = Model(tiny_chat_config(), None, model_params)
        hidden = model.hidden(model_params, rows)[np.arange(ROWS), last]
        return jax.nn.softmax(model.logits(model_params, hidden))

    def chances(rows):
        found = []
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS]
            padded = np.zeros((ROWS, WIDTH), np.int32)
            last = np.zeros(ROWS, np.int32)
            for i, row in enumerate(part):
                padded[i, : len(row)], last[i] = row, len(row) - 1
            found.append(np.asarray(of_part(params, padded, last), np.float64)[: len(part)])
        return np.concatenate(found)

    return chances


# A share, a mark; and what may be the beginning of one.
OTHER_SCALE = re.compile(r" ?(?:[01][.,](?:[0-9]|$)|(?:[0-9]|10)(?: ?/(?! ?100)| out\b))")


def enumerated_masses(judge, prompt, next_token_chances) -> np.ndarray:
    """P(number), by going through every token at every place of the reply."""
    tokenizer = judge.chat.tokenizer
    beginning = judge.chat.prompt_tokens([{"role": "user", "content": prompt}])
    # Ids beyond the tokenizer's own spell nothing, and end a numeral.
    texts = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    texts += ["?"] * (judge.model.config.vocab_size - len(texts))
    going_on = [i for i, text in enumerate(texts) if re.match("[ 0-9.,/]", text)]
    others = [i for i, text in enumerate(texts) if not re.match("[ 0-9.,/]", text)]
    masses, open_replies = np.zeros(101), {(): 1.0}
    while open_replies:
        chances = next_token_chances([[*beginning, *reply] for reply in open_replies])
        longer = {}
        for (reply, chance), row in zip(open_replies.items(), chances):
            written = "".join(texts[token] for token in reply)
            ends = [(written + texts[token], row[token], token) for token in going_on]
            for text, share, token in [*ends, (written + "?", row[others].sum(), None)]:
                if token is not None and re.fullmatch(r" ?[0-9]{0,3}", text):
                    longer[*reply, token] = chance * share
                elif found := re.match(r" ?(0|[1-9][0-9]*)[^0-9]", text):
                    if int(found[1]) <= 100 and not OTHER_SCALE.match(text):
                        masses[int(found[1])] += chance * share
        open_replies = longer
    return masses


@pytest.mark.parametrize("kind", EXTRA_PIECES)
def test_the_expectation_equals_enumeration(params, kind, next_token_chances):
    judge = judge_of(params, kind)
    found = dict(judge.judge(PROMPTS))
    checked = list(EXTRA_PIECES).index(kind)  # another length of prompt for each
    masses = enumerated_masses(judge, PROMPTS[checked], next_token_chances)
    expected = masses @ np.arange(101) / masses.sum()
    np.testing.assert_allclose(found[checked].number_mass, masses.sum(), rtol=1e-4)
    np.testing.assert_allclose(found[checked].score, expected, rtol=1e-4)


def test_too_little_number_mass_is_no_score_with_its_reason(params):
    judge = judge_of(params, "a token for each digit", least_mass=0.5)
    found = dict(judge.judge(PROMPTS))
    assert sorted(found) == [0, 1, 2]
    for judgement in found.values():
        assert judgement.score is None and 0 < judgement.number_mass < 0.5
        assert judgement.reason == reason_of(judgement.reply)


def test_what_is_known_changes_no_number_of_the_others(params):
    """To the bit: a judging that goes on makes the batches of an undisturbed one."""
    judge = judge_of(params, "a token for each digit", batch_size=2)
    whole = dict(judge.judge(PROMPTS))
    for known in ({0}, {1}, {0, 2}, {0, 1, 2}):
        rest = {i: one for i, one in whole.items() if i not in known}
        assert dict(judge.judge(PROMPTS, known)) == rest


def test_a_prompt_beyond_what_the_judge_can_read_is_not_cut(params):
    judge = judge_of(params, "a token for each digit")
    short = replace(judge.model, config=replace(judge.model.config, max_positions=20))
    judge = LocalJudge("short", short, judge.chat, 0.0, 4)
    assert dict(judge.judge(["How good is this long answer?"])) == {
        0: Judgement(None, None, "too_long")
    }


@pytest.mark.parametrize(
    ("reply", "number", "reason"),
    [
        ("85", 85, "unsure"),
        (" 100.", 100, "unsure"),
        ("0", 0, "unsure"),
        ("007", None, "out_of_range"),
        ("101", None, "out_of_range"),
        ("-5", None, "out_of_range"),
        ("Refusal.", None, "refusal"),
        ("CODE", None, "code"),
        ("**REFUSAL**", None, "refusal"),
        ("[REFUSAL]", None, "refusal"),
        ("Answer: REFUSAL", None, "refusal"),
        ("`code`.", None, "code"),
        ("Codependency is bad", None, "no_number"),
        ("**85**", None, "no_number"),
        ("Score: 85", None, "no_number"),
        ("85/100", 85, "unsure"),
        ("5/100", 5, "unsure"),
        ("85.5", 85, "unsure"),
        ("0.", 0, "unsure"),
        ("0.85", None, "another_scale"),
        (" 1,0", None, "another_scale"),
        ("8/10", None, "another_scale"),
        ("8 / 10", None, "another_scale"),
        ("10/10", None, "another_scale"),
        ("7 out of 10.", None, "another_scale"),
        ("100%", 100, "unsure"),
        ("١٢", None, "no_number"),
        ("between 70 and 80", None, "no_number"),
        ("", None, "empty"),
        ("I would say 85", None, "no_number"),
        ("<think>", None, "no_number"),
    ],
)
def test_what_a_reply_is(reply, number, reason):
    assert number_in(reply) == number and reason_of(reply) == reason
