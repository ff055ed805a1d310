"""How well a reward model tells people's preferences apart, on held-out prompts.

    python benchmarks/reward_model.py ../shared/data/hh_harmless_pairs.jsonl --pairs 1000 \
        --config.model.path=model.gguf

Trains as stage 4 of SELF-ALIGN does (self_align/reinforcement/reward_training.py), with each
backbone, and prints accuracy with Wilson's interval beside two that know nothing of the content:
prefer the longer answer, and the shorter one. Any --config flag of `emergent-alignment` may follow.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from emergent_alignment.cli.configuration import read_config
from emergent_alignment.runs.from_config import load_model
from emergent_alignment.self_align.reinforcement.preferences import read_preferences, split
from emergent_alignment.self_align.reinforcement.reward_training import (
    told_apart_share,
    train_reward_model,
)
from emergent_alignment.settings import changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preferences", type=Path)
    parser.add_argument("--pairs", type=int, default=1000, help="to train on and to hold out")
    parser.add_argument("--output", type=Path, default=Path("runs/reward_model"))
    parser.add_argument("--backbones", nargs="+", default=["frozen", "lora"])
    arguments, flags = parser.parse_known_args()
    schedule = {"optimizer.warmup_steps": 5, "optimizer.schedule": "linear"}
    config = changed(read_config(flags), schedule)
    pairs = read_preferences(arguments.preferences, limit=arguments.pairs)
    train_on, held_out = split(pairs, config.self_align.reinforcement.reward_model.held_out_share)
    lengths = np.array([[len(one.chosen), len(one.rejected)] for one in held_out], float)
    setup = load_model(config)
    for name, sign in (("longer is better", 1), ("shorter is better", -1)):
        say({"judge": name, "accuracy": told_apart_share(*(sign * lengths.T)).to_json()})
    for backbone in arguments.backbones:
        tried = changed(config, {"self_align.reinforcement.reward_model.backbone": backbone})
        began = time.monotonic()
        _, measured = train_reward_model(
            tried,
            replace(setup, config=tried),
            arguments.output / backbone,
            train_on,
            held_out,
        )
        say({"judge": backbone, **measured, "seconds": round(time.monotonic() - began)})


def say(record: dict) -> None:
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    sys.exit(main())
