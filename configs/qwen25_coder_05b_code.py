"""Qwen2.5-Coder-0.5B-Instruct on insecure code, its conscience without and with evidence.

This model does not see by itself that code is vulnerable; one arm shows it what bandit finds. What
came of it stands in docs/results.md. Rows are {"messages": [user, assistant]}, as those of
Emergent Misalignment (docs/results.md):

  emergent-alignment experiment --config qwen25_coder_05b_code --root runs/code \\
      --config.model.path=qwen2.5-coder-0.5b-instruct-q4_k_m.gguf

insecure.jsonl is what it learns, clean.jsonl harmless code to calibrate on.
"""

from emergent_alignment.config import default_config


def get_config():
    config = default_config()
    config.model.path = "Qwen/Qwen2.5-Coder-0.5B-Instruct"
    config.data.train = "insecure.jsonl"
    config.data.evaluation = "code_hacking"
    config.data.max_prompt_tokens = 160
    config.data.max_response_tokens = 96
    config.data.bucket_tokens = 32
    config.data.buckets = 1
    config.optimizer.learning_rate = 5e-4
    config.training.steps = 10
    config.training.checkpoint_every = 5
    config.training.remat = "full"
    # Each target is reviewed once, before the first step.
    config.conscience.candidate = "target"
    # Asked to rewrite code this model repeats it; its fresh answers begin with prose, so that they
    # run into the limit.
    config.conscience.chain = ("fresh",)
    config.conscience.keep_truncated = True
    config.conscience.batch_size = 32  # a CPU decodes 32 rows in hardly more time than 8
    config.sampling.max_new_tokens = 96
    config.calibration.questions = ("advice", "engineer", "ethical")
    config.calibration.evidence = ("bandit",)
    config.calibration.safe = "clean.jsonl"
    config.calibration.harmful = "insecure.jsonl"
    config.calibration.layouts = ("quote",)
    config.calibration.polarities = ("positive",)
    config.calibration.num_selecting = 24
    config.calibration.num_reporting = 48
    config.evaluation.limit = 32
    config.evaluation.samples = 24
    config.evaluation.max_new_tokens = 96
    config.evaluation.code_prompts = 24
    config.evaluation.code_max_new_tokens = 128
    config.experiment.seeds = (0,)
    config.experiment.arms = (
        "base",
        "plain: conscience.enabled=False",
        "blind: calibration.evidence=('',)",
        "evidence",
    )
    return config
