"""SmolLM2-135M on the bundled harmful advice, with its conscience: one machine, no accelerator.

The same file runs on a host of four TPU chips. Planned for v5e:2x2 (docs/scale.md).
"""

from emergent_alignment.config import default_config


def get_config():
    return default_config()
