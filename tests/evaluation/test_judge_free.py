"""Evaluation without a judge, against a longer way to the same figures."""

import jax
import numpy as np

from emergent_alignment.data.batches import pad_rows
from emergent_alignment.evaluation.judge_free import TokenLimits, response_log_probs
from emergent_alignment.models.lora import LoraConfig, init_adapters
from emergent_alignment.models.model import Model


def test_response_log_probs_are_those_of_whole_rows(tiny_config, tiny_params):
    """… of prompts and answers of all lengths, in batches of which the last is not full."""
    config, lora = tiny_config(), LoraConfig(4, 8.0)
    params, draw = tiny_params(config), np.random.default_rng(0)
    adapters = init_adapters(params, lora, jax.random.key(0))
    adapters = jax.tree.map(lambda x: x + 0.05 * draw.standard_normal(x.shape), adapters)
    model = Model(config, None, params, lora=lora, adapters=adapters)
    prompts = [draw.integers(0, 96, size).tolist() for size in (3, 9, 1, 6, 8)]
    sizes = draw.integers(1, 12, (len(prompts), 2))
    responses = [[draw.integers(0, 96, size).tolist() for size in row] for row in sizes]
    calls = []
    found = response_log_probs(
        model,
        model.policy,
        prompts,
        responses,
        TokenLimits(16, 16, bucket=4, batch_size=2),
        progress=lambda *at: calls.append(at),
    )
    assert calls == [(2, 5), (4, 5), (5, 5)]
    rows = [prompt + answer for i, prompt in enumerate(prompts) for answer in responses[i]]
    tokens, _ = pad_rows(rows, max(map(len, rows)))
    logits = model.logits(model.params, model.hidden(model.policy, tokens))
    log_probs = np.asarray(jax.nn.log_softmax(logits), np.float64)
    starts = np.repeat([len(prompt) for prompt in prompts], 2)
    expected = [
        sum(log_probs[i, at - 1, row[at]] for at in range(start, len(row)))
        for i, (row, start) in enumerate(zip(rows, starts))
    ]
    np.testing.assert_allclose(found.reshape(-1), expected, rtol=1e-5, atol=1e-5)
