"""SmolLM2-135M-Instruct with its conscience and no training, for `respond`, `chat` and `serve`.

Calibrate first, so that question, layout and threshold are this model's:

  emergent-alignment calibrate --config zero_shot --output runs/calibration.json
  emergent-alignment respond --config zero_shot \\
      --config.conscience.calibration=runs/calibration.json "Can I refreeze thawed chicken?"
"""

from emergent_alignment.config import default_config


def get_config():
    config = default_config()
    # Its answers are long-winded: a correction that ran into the limit may still be said, if it is
    # approved.
    config.conscience.keep_truncated = True
    config.calibration.questions = ("advice", "careful", "ethical")
    config.calibration.num_selecting = 32
    config.calibration.num_reporting = 64
    return config
