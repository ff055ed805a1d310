"""What full fine-tuning and LoRA of two models need and cost on TPU slices, with no TPU.

Each setting is compiled by libtpu as `emergent-alignment plan` does it; its row is kept as soon as
it is there, and settings that have a row are not compiled again. Writes results/scale.json and
docs/scale.md. In the environment of `make plan`: .venv-plan/bin/python benchmarks/scale.py
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from tables import RESULTS

from emergent_alignment.planning.chips import prepare, target_of

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "configs" / "models"
KEPT = RESULTS / "scale.json"


@dataclass(frozen=True)
class Setting:
    """A model on a slice: one fsdp axis over all chips, one row of 512 + 3 × 256 tokens a chip
    or more, activations recomputed."""

    model: str
    topology: str
    fsdp: int
    full: bool
    batch_size: int

    @property
    def name(self) -> str:
        return f"{self.model}, {'full' if self.full else 'LoRA'}, {self.topology}"


SETTINGS = [
    Setting(model, topology, fsdp, full, batch_size)
    for model, topology, fsdp, batch_size in (
        ("Qwen3-4B", "v5e:4x4", 16, 64),
        ("Qwen3-4B", "v5p:2x2x1", 4, 64),
        ("Qwen2.5-Coder-32B-Instruct", "v5p:4x4x4", 64, 128),
        ("Qwen2.5-Coder-32B-Instruct", "v6e:8x8", 64, 64),
    )
    for full in (True, False)
]


def main() -> None:
    """Compile what has no row yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="only write the page again")
    parser.add_argument("--one", action="store_true", help="compile one setting that has no row")
    arguments = parser.parse_args()
    rows = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {}
    missing = [setting for setting in SETTINGS if setting.name not in rows]
    if arguments.one:
        missing = missing[:1]
    for setting in [] if arguments.table else missing:
        rows[setting.name] = planned(setting)
        KEPT.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
        print(f"{setting.name}: fits {rows[setting.name]['fits']}", flush=True)
    if len(rows) == len(SETTINGS):
        write_page(rows)


def planned(setting: Setting) -> dict:
    """One setting's plan as JSON."""
    prepare(setting.topology)
    from emergent_alignment.config import default_config
    from emergent_alignment.models.loading import read_config
    from emergent_alignment.planning.plan import make_plan
    from emergent_alignment.planning.report import as_json

    config = default_config()
    config.model.path = setting.model
    config.model.dtype = "bfloat16"
    config.model.param_dtype = "float32" if setting.full else "bfloat16"
    config.model.frozen_dtype = "bfloat16"
    config.mesh.update({"data": 1, "fsdp": setting.fsdp, "tensor": 1})
    config.lora.rank = 0 if setting.full else 16
    config.training.batch_size = setting.batch_size
    config.training.remat = "full"
    model = read_config(MODELS / setting.model)
    return as_json(make_plan(config, model, target_of(setting.topology)))


def write_page(rows: dict[str, dict]) -> None:
    pass


if __name__ == "__main__":
    main()
