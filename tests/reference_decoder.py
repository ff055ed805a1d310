"""A decoder written the long way, in numpy and float64: one row, one layer, one head, one query at
a time, no padding, no cache. Tests compare the real one with it; nothing is shared with it."""

import numpy as np

from emergent_alignment.models.config import ModelConfig


def logits(config: ModelConfig, params: dict, tokens: list[int]) -> np.ndarray:
    """float64[tokens, vocabulary] for one row of tokens at positions 0, 1, 2, …"""
    params = _as_float64(params)
    unembedding = params["unembedding"] if "unembedding" in params else params["embedding"].T
    return hidden(config, params, tokens) @ unembedding


def log_probs(config: ModelConfig, params: dict, tokens: list[int]) -> np.ndarray:
    """float64[tokens, vocabulary]: log softmax of `logits`."""
    values = logits(config, params, tokens)
    values = values - values.max(-1, keepdims=True)
    return values - np.log(np.exp(values).sum(-1, keepdims=True))


def hidden(config: ModelConfig, params: dict, tokens: list[int]) -> np.ndarray:
    """float64[tokens, width]: the final hidden states, after the last norm."""
    params = _as_float64(params)
    return _norm(residual(config, params, tokens, config.num_layers), params["final_norm"], config)


def residual(config: ModelConfig, params: dict, tokens: list[int], layers: int) -> np.ndarray:
    """float64[tokens, width]: the residual stream after so many layers."""
    params = _as_float64(params)
    x = params["embedding"][np.asarray(tokens)]
    for number in range(layers):
        layer = {
            name: {leaf: array[number] for leaf, array in value.items()}
            if isinstance(value, dict)
            else value[number]
            for name, value in params["layers"].items()
        }
        window = config.layer_windows[number] if config.layer_windows else None
        x = x + _attention(config, layer, _norm(x, layer["attention_norm"], config), window)
        normed = _norm(x, layer["mlp_norm"], config)
        gate = _project(normed, layer["gate"])
        inner = gate / (1 + np.exp(-gate)) * _project(normed, layer["up"])
        x = x + _project(inner, layer["down"])
    return x


def _as_float64(tree: dict) -> dict:
    return {
        name: _as_float64(value) if isinstance(value, dict) else np.asarray(value, np.float64)
        for name, value in tree.items()
    }


def _norm(x: np.ndarray, weight: np.ndarray, config: ModelConfig) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + config.rms_norm_eps) * weight


def _project(x: np.ndarray, linear: dict) -> np.ndarray:
    return x @ linear["kernel"] + linear.get("bias", 0.0)


def _attention(config: ModelConfig, layer: dict, x: np.ndarray, window: int | None) -> np.ndarray:
    """Head h of the queries reads key-value head h // (heads per key-value head)."""
    size = config.head_dim
    shared_by = config.num_heads // config.num_kv_heads
    query, key, value = (_project(x, layer[name]) for name in ("query", "key", "value"))
    mixed = np.zeros_like(query)
    for head in range(config.num_heads):
        own = slice(head * size, (head + 1) * size)
        theirs = slice(head // shared_by * size, (head // shared_by + 1) * size)
        queries, keys = query[:, own], key[:, theirs]
        if config.qk_norm:
            queries = _norm(queries, layer["query_norm"], config)
            keys = _norm(keys, layer["key_norm"], config)
        queries, keys = _rotate(queries, config), _rotate(keys, config)
        for now in range(len(x)):
            first = 0 if window is None else max(0, now - window + 1)
            scores = keys[first : now + 1] @ queries[now] / np.sqrt(size)
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            mixed[now, own] = weights @ value[first : now + 1, theirs]
    return _project(mixed, layer["output"])


def _rotate(x: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Each pair (i, i + half) of a head turns as one complex number."""
    half = config.head_dim // 2
    speeds = config.rope_theta ** (-np.arange(half) / half)
    turned = x[:, :half] + 1j * x[:, half:]
    turned = turned * np.exp(1j * np.arange(len(x))[:, None] * speeds)
    return np.concatenate([turned.real, turned.imag], axis=-1)
