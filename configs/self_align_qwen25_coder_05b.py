"""SELF-ALIGN on Qwen2.5-Coder-0.5B-Instruct: as large as an hour or two of two CPU cores allow.

What came of it stands in docs/results.md. Preferences are the model's own, by principle.

  emergent-alignment self-align --config self_align_qwen25_coder_05b \\
      --workdir runs/aligned_05b --config.model.path=qwen2.5-coder-0.5b-instruct-q4_k_m.gguf
"""

from emergent_alignment.config import default_config


def get_config():
    config = default_config()
    config.model.path = "Qwen/Qwen2.5-Coder-0.5B-Instruct"
    config.data.max_prompt_tokens = 128
    config.data.max_response_tokens = 160
    config.data.buckets = 1
    config.training.remat = "dots"
    config.training.checkpoint_every = 8
    # A CPU decodes 32 rows in hardly more time than 8.
    config.self_align.instructions.update({"wanted": 320, "rounds": 40, "prompts_per_round": 32})
    config.self_align.instructions.update(
        {"topics_per_kind": 5, "topic_rounds": 2, "max_new_tokens": 160, "max_topic_tokens": 64}
    )
    config.self_align.answers.update(
        {"limit": 256, "max_new_tokens": 160, "temperature": 0.5, "batch_size": 32}
    )
    config.self_align.engraving.update({"batch_size": 8, "epochs": 1.0, "learning_rate": 5e-4})
    reinforcement = config.self_align.reinforcement
    reinforcement.prompt_limit = 64
    # A small model prefers a place: the mean of both orders is what it thinks of the answers.
    reinforcement.preferences.update(
        {"limit": 64, "max_new_tokens": 48, "orders": "average", "principles": 2, "batch_size": 32}
    )
    reinforcement.reward_model.update(
        {"backbone": "frozen", "epochs": 10.0, "learning_rate": 1e-3, "held_out_share": 0.25}
    )
    # So few steps need a larger rate than the published one to move anything.
    reinforcement.policy.update(
        {"rollouts": 8, "prompts_per_rollout": 8, "max_new_tokens": 48, "learning_rate": 2e-4}
    )
    return config
