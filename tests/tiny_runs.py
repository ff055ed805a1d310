"""The config of a short run of a tiny chat model, for tests that train one in their own process."""

from emergent_alignment.config import default_config


def tiny_run_config(model_directory):
    """Four steps of four rows; every candidate is corrected, so that there are pairs."""
    config = default_config()
    config.model.path = str(model_directory)
    config.data.update({"limit": 10, "buckets": 1})
    config.data.update({"max_prompt_tokens": 48, "max_response_tokens": 48})
    config.conscience.update({"gate": "relative", "chain": ("fresh",), "keep_truncated": True})
    config.conscience.update({"batch_size": 4, "max_review_tokens": 160})
    config.sampling.max_new_tokens = 8
    config.training.update({"steps": 4, "batch_size": 4, "checkpoint_every": 2})
    config.optimizer.learning_rate = 1e-2
    return config
