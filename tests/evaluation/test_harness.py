"""Our model in lm-evaluation-harness: scores equal those of plain logits, programs stay few, and
what cannot be had is one line. Parity with the harness's own class: tests/parity."""

import functools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from harness_tasks import only_our_tasks, write_choice_task
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import default_config
from emergent_alignment.data.chat import read_chat
from emergent_alignment.errors import UserError
from emergent_alignment.evaluation import harness
from emergent_alignment.evaluation.capability import evaluate_capability, load_harness_tasks
from emergent_alignment.evaluation.harness import HarnessModel, continuation_scores
from emergent_alignment.models.attention import causal_plan
from emergent_alignment.models.forward import forward, unembedding
from emergent_alignment.models.model import load
from emergent_alignment.runs.from_config import Setup

TEXTS = (
    "Keep receipts, and ask before you sign anything.",
    "No.",
    "A long walk and a good night's sleep help more often than people think. " * 3,
)


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    model = load(write_tiny_chat_model(tmp_path_factory.mktemp("harness") / "model"))
    return HarnessModel(model, read_chat(model.tokenizer), batch_size=3)


def asked(*arguments):
    return SimpleNamespace(args=arguments)


@functools.partial(jax.jit, static_argnames="config")
def plain_logits(config, params, row):
    """Logits of one row, all positions at once; what stands behind a token is not seen."""
    positions = jnp.arange(len(row))[None]
    hidden, _ = forward(config, params, row[None], positions, causal_plan(positions))
    return hidden[0] @ unembedding(params)


def token_log_probs(tested, tokens):
    """float64 log-probs [tokens - 1, vocabulary] of what follows each token."""
    row = np.zeros(128, np.int32)
    row[: len(tokens)] = tokens
    logits = plain_logits(tested.model.config, tested.params, row)
    logits = np.asarray(logits, np.float64)[: len(tokens) - 1]
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_continuations_score_as_plain_logits_say(tested):
    pairs = [(TEXTS[0][:20], TEXTS[0][20:]), ("Is it safe?", " " + TEXTS[1]), ("Why?", TEXTS[2])]
    found = tested.loglikelihood([asked(*pair) for pair in pairs], disable_tqdm=True)
    for (context, continuation), (log_prob, greedy) in zip(pairs, found):
        first, rest = tested._encode_pair(context, continuation)
        tokens = np.array(first + rest)
        table = token_log_probs(tested, tokens)[len(first) - 1 :]
        np.testing.assert_allclose(
            log_prob, table[np.arange(len(rest)), rest].sum(), rtol=1e-5, atol=1e-4
        )
        assert greedy == bool((table.argmax(-1) == rest).all())


def test_what_the_model_would_say_is_known_to_be_greedy(tested):
    context = tested.tok_encode("Is it safe?")
    (said,) = tested.generate_until([asked("Is it safe?", {"max_gen_toks": 6, "until": []})])
    tokens = list(context)
    for _ in range(6):
        tokens.append(int(token_log_probs(tested, [*tokens, 0])[-1].argmax()))
    assert said == tested.tokenizer.decode(tokens[len(context) :], skip_special_tokens=True)
    ((_, greedy),) = tested._loglikelihood_tokens([(None, context, tokens[len(context) :])])
    assert greedy
    wrong = [*tokens[len(context) : -1], (tokens[-1] + 1) % 512]
    assert not tested._loglikelihood_tokens([(None, context, wrong)])[0][1]


def test_a_context_that_is_too_long_keeps_its_end(tested, monkeypatch):
    monkeypatch.setattr(tested, "max_length", 40)
    tokens = tested.tok_encode(TEXTS[2])
    context, continuation = tokens[:70], tokens[70:80]
    assert len(tokens) > 80
    ((log_prob, _),) = tested._loglikelihood_tokens([(None, context, continuation)])
    table = token_log_probs(tested, np.array(tokens[80 - 41 : 80]))
    expected = table[np.arange(30, 40), continuation].sum()
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5, atol=1e-4)
    with pytest.raises(UserError, match="longer than this model reads"):
        tested._loglikelihood_tokens([(None, context, tokens[:41])])


def test_rolling_windows_count_every_token_once(tested, monkeypatch):
    monkeypatch.setattr(tested, "max_length", 32)
    text = TEXTS[2]
    tokens = tested.tok_encode(text)
    expected = 0.0
    for start in range(0, len(tokens), 32):
        part = tokens[start : start + 32]
        context = [tokens[start - 1]] if start else [tested.prefix_token_id]
        if start and len(part) < 32:  # the last window keeps a full context
            context = tokens[len(tokens) - 33 : start]
        table = token_log_probs(tested, np.array(context + part))[len(context) - 1 :]
        expected += table[np.arange(len(part)), part].sum()
    (found,) = tested.loglikelihood_rolling([asked(text)])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)


def test_an_answer_ends_before_its_first_stop_text(tested, monkeypatch):
    monkeypatch.setattr(harness, "ROUND_TOKENS", 16)
    settings = {"max_gen_toks": 40, "until": []}
    (whole,) = tested.generate_until([asked("What now?", settings)])
    assert len(tested.tok_encode(whole)) > 32, "rounds end within it"
    stop = whole[len(whole) // 2 :][:3]
    (cut,) = tested.generate_until([asked("What now?", settings | {"until": [stop]})])
    assert cut == whole.split(stop)[0]


def test_requests_keep_their_order_whatever_they_share(tested):
    requests = [
        asked(text[:40], {"max_gen_toks": most, "until": ["e"]})
        for text, most in zip(TEXTS, (5, 9, 5))
    ]
    together = tested.generate_until(requests)
    assert together == [tested.generate_until([request])[0] for request in requests]


def test_lengths_within_a_bucket_compile_nothing_new(tested):
    def scored(*lengths):
        tokens = tested.tok_encode(TEXTS[2])
        rows = [(None, tokens[:n], tokens[n : n + 5]) for n in lengths]
        tested._loglikelihood_tokens(rows)

    scored(34, 50)
    before = continuation_scores._cache_size()
    scored(40, 35, 45, 36, 58)
    scored(58)
    assert continuation_scores._cache_size() == before


def test_other_ways_to_decode_are_refused(tested):
    for settings in ({"num_beams": 4}, {"max_gen_toks": 10**6}):
        with pytest.raises(UserError, match="leave that task out|Leave that task out"):
            tested.generate_until([asked("x", settings)])


def test_the_chat_template_is_the_models_own(tested):
    turns = [{"role": "user", "content": "Hi"}]
    assert tested.apply_chat_template(turns) == tested.chat.prompt_text(turns)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Settings with a folder of three tasks of our own."""
    only_our_tasks(monkeypatch, tmp_path / "cache")
    folder = write_choice_task(tmp_path / "tasks", "even_numbers")
    write_choice_task(folder, "gone_numbers", data=False)
    write_choice_task(folder, "running_code", unsafe=True)
    config = default_config()
    config.capability.include = str(folder)
    return config


def test_a_task_of_ones_own_runs_and_its_share_has_wilsons_interval(config, tested, tmp_path):
    config.capability.tasks = "even_numbers"
    setup = Setup(typed(config), tested.model, tested.chat)
    tasks = load_harness_tasks(typed(config))
    result, path = evaluate_capability(typed(config), setup, tasks, tmp_path / "out", arm="base")
    accuracy = result["tasks"]["even_numbers"]["metrics"]["acc"]
    assert accuracy["n"] == 6 and 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    assert accuracy["high"] > accuracy["low"]
    assert json.loads(path.read_text()) == result
    lines = path.with_name("samples-even_numbers.jsonl").read_text().splitlines()
    assert len(lines) == 6 and json.loads(lines[0])["doc"]["question"] == "Is 0 even?"


def test_a_group_has_its_tasks_and_its_own_mean(config, tested, tmp_path):
    folder = write_choice_task(tmp_path / "tasks", "more_numbers")
    (folder / "both.yaml").write_text(
        "group: both\ntask: [even_numbers, more_numbers]\n"
        "aggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
    )
    config.capability.tasks = "both"
    setup = Setup(typed(config), tested.model, tested.chat)
    tasks = load_harness_tasks(typed(config))
    found, _ = evaluate_capability(typed(config), setup, tasks, tmp_path / "out", arm="base")
    names = ("both", "even_numbers", "more_numbers")
    assert set(found["tasks"]) == set(names)
    group, one, other = (found["tasks"][name]["metrics"]["acc"] for name in names)
    assert group["n"] == one["n"] + other["n"] == 12 and group["low"] < group["high"]
    assert group["value"] == pytest.approx((one["value"] + other["value"]) / 2)


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ("", "name one or more tasks"),
        ("even_number", "there is no such task .*did you mean even_numbers"),
        ("gone_numbers", r"gone_numbers: its data \(json\) cannot be had here .*HF_HOME"),
        ("running_code", "without a sandbox; `evaluate code`"),
    ],
)
def test_a_task_that_cannot_be_had_is_named_with_what_to_do(config, tasks, said):
    config.capability.tasks = tasks
    with pytest.raises(UserError, match=said) as found:
        load_harness_tasks(typed(config))
    assert "\n" not in str(found.value)


def test_without_the_harness_the_remedy_is_said(config, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'emergent-alignment\[eval\]'"):
        load_harness_tasks(typed(config))
