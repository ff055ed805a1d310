"""Plain offline DPO: pairs that are given, no task, no conscience, the start as the reference.

    emergent-alignment train --config configs/dpo.py --workdir runs/dpo \
        --config.data.preferences=pairs.jsonl

Without a source of your own it prefers the safe advice of the bundled pairs to the harmful.
"""

from emergent_alignment.config import default_config


def get_config():
    config = default_config()
    config.conscience.enabled = False
    config.data.train = ""
    config.data.preferences = "harmful_advice"
    return config
