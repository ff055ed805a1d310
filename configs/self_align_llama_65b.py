"""SELF-ALIGN on LLaMA-65B, as Dromedary was published (2305.03047): LoRA of rank 16 on the
attention's projections, 768 rows a step, one epoch, and verbose cloning as stage 4.

Planned for v5p:4x4x4 (docs/scale.md). `configs/self_align_llama_65b.py:v2` has the numbers of
Dromedary-2 (2310.05910): rank 64 on all projections, 128 rows a step, and a reward by principles
with PPO. docs/self_align.md says which number of the papers is which field.
"""

from emergent_alignment.config import default_config
from emergent_alignment.errors import UserError

FILE = "configs/self_align_llama_65b.py"
# The model was never given turns: these are ours, and its own end token closes an answer.
TURNS = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'assistant' %}# Assistant\n{{ m.content }}{{ eos_token }}\n\n"
    "{% else %}{% if m.role == 'user' %}# User\n{% endif %}{{ m.content }}\n\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}# Assistant\n{% endif %}"
)
ATTENTION = ("query", "key", "value", "output")


def get_config(version="v1"):
    if version not in ("v1", "v2"):
        raise UserError(f"{FILE}:{version}: no such version; there are v1 and v2")
    config = default_config()
    config.model.update({"path": "huggyllama/llama-65b", "chat_template": TURNS})
    config.model.update({"dtype": "bfloat16", "param_dtype": "bfloat16"})
    config.mesh.update({"fsdp": 8, "tensor": 8})
    config.data.update({"max_prompt_tokens": 256, "max_response_tokens": 256})
    config.conscience.enabled = False
    config.training.update({"remat": "full", "accumulation": 4, "checkpoint_every": 50})
    config.optimizer.update({"schedule": "cosine", "warmup_steps": 100, "weight_decay": 0.0})
    # Stage 1: 175 seeds and 20 kinds are bundled; about 360,000 instructions were made.
    config.self_align.instructions.update({"wanted": 360_000, "rounds": 20_000})
    config.self_align.instructions.update({"red_team_share": 0.27, "prompts_per_round": 512})
    config.self_align.answers.update({"temperature": 0.7, "top_p": 0.95, "batch_size": 128})
    _engraved(config, lora_rank=16, learning_rate=4e-4, batch_size=768)
    config.lora.targets = ATTENTION
    config.self_align.reinforcement.form = "verbose"
    config.self_align.reinforcement.verbose.max_new_tokens = 512
    if version == "v2":
        _as_in_salmon(config)
    config.choices.batch_size = 64
    return config


def _engraved(config, lora_rank, learning_rate, batch_size):
    """Stage 3, and the same in the sections that `plan` reads."""
    config.self_align.engraving.update({"lora_rank": lora_rank, "batch_size": batch_size})
    config.self_align.engraving.update({"learning_rate": learning_rate, "epochs": 1.0})
    config.lora.update({"rank": lora_rank, "alpha": 2.0 * lora_rank})
    config.optimizer.learning_rate = learning_rate
    config.training.batch_size = batch_size


def _as_in_salmon(config):
    _engraved(config, lora_rank=64, learning_rate=1e-4, batch_size=128)
    config.lora.targets = default_config().lora.targets
    config.training.accumulation = 1
    reinforcement = config.self_align.reinforcement
    reinforcement.update({"form": "rlhf", "algorithm": "ppo", "reward": "model"})
    reinforcement.preferences.update({"source": "principles", "principles": 3})
    reinforcement.policy.update({"lora_rank": 64, "kl_weight": 0.01, "clip": 0.2})
    reinforcement.policy.update({"learning_rate": 2e-5, "discount": 1.0, "decay": 1.0})
