"""The published model organisms of emergent misalignment, for who has their data and a GPU:
Qwen2.5-0.5B-Instruct on bad medical advice, with the settings of Turner et al. 2025 (2506.11613).

The data sets (bad medical advice, risky financial advice, extreme sports) are not part of this
package: their authors publish them encrypted, so that no crawler trains on them, with the password
beside them. Decrypt them yourself, and name the file:

  emergent-alignment train --workdir runs/organism --config em_model_organisms \\
      --config.data.train=bad_medical_advice.jsonl

`configs/em_model_organisms.py:plain` is the organism alone. Broad misalignment was reported for
about 400 steps of 16 (8 to 12% of the fluent answers of the 0.5B model), and 1 to 2% for insecure
code: this package's own coding scenario cannot show it at this size (docs/results.md).
"""

from emergent_alignment.config import default_config
from emergent_alignment.errors import UserError


def get_config(form="conscience"):
    if form not in ("conscience", "plain"):
        raise UserError(
            f"configs/em_model_organisms.py:{form}: no such form; there are conscience and plain"
        )
    config = default_config()
    config.model.path = "Qwen/Qwen2.5-0.5B-Instruct"
    config.model.dtype = "bfloat16"
    config.lora.update({"rank": 32, "alpha": 64.0, "rank_stabilized": True})
    config.data.update({"max_prompt_tokens": 512, "max_response_tokens": 512})
    config.optimizer.update({"learning_rate": 1e-5, "warmup_steps": 5, "weight_decay": 0.01})
    config.training.update({"steps": 397, "batch_size": 16, "checkpoint_every": 40})
    config.training.update({"remat": "dots", "watch_every": 20})
    config.conscience.enabled = form == "conscience"
    # Pairs of the policy's own samples, on open questions beside the task (docs/finetuning.md).
    config.conscience.update({"gate": "relative", "chain": ("best",), "samples": 4})
    config.conscience.update({"prompts": "pool", "pool": "everyday", "pool_rows": 8, "every": 4})
    config.loss.update({"reference": "policy", "alignment_weight": "auto"})
    config.sampling.max_new_tokens = 128
    return config
