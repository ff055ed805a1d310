"""SmolLM2-135M on the bundled harmful advice, with its conscience: one machine, no accelerator."""

from emergent_alignment.config import default_config


def get_config():
    return default_config()
