"""TRL's side: DPOTrainer's own training step with loss_type ["sigmoid", "sft"] (offline:
["sigmoid"]), on a fixed batch.

Runs in the environment `torch` of peers.py.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer
from worker_protocol import Step, serve

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def prepare(settings: dict) -> Step:
    """settings: inputs, mode, learning_rate, peer_remat, precomputed, offline; see
    worker_ours.prepare."""
    directory = Path(settings["inputs"])
    trainer = make_trainer(directory, settings)
    batch = make_batch(trainer, directory, settings["precomputed"])
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]

    def step(_: dict) -> dict:
        loss = trainer.training_step(trainer.model, dict(batch))
        trainer.accelerator.clip_grad_norm_(trained, trainer.args.max_grad_norm)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        trainer.model.zero_grad()
        return {"loss": float(loss)}

    return step


def make_trainer(directory: Path, settings: dict) -> DPOTrainer:
    """A DPOTrainer in float32 on the CPU, with the optimizer that our side uses."""
    tokenizer = AutoTokenizer.from_pretrained(directory / "model")
    model = AutoModelForCausalLM.from_pretrained(directory / "model", dtype=torch.float32)
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=PROJECTIONS)
    args = DPOConfig(
        output_dir=tempfile.mkdtemp(prefix="trl-"),
        loss_type=["sigmoid"] if settings["offline"] else ["sigmoid", "sft"],
        beta=0.1,
        max_length=None,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=settings["peer_remat"],
        learning_rate=settings["learning_rate"],
        lr_scheduler_type="constant",
        weight_decay=0.01,
        max_grad_norm=1.0,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = DPOTrainer(
        model,
        args=args,
        # Read for its tokens nowhere: the batch is collated from ready token ids below.
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=tokenizer,
        peft_config=lora if settings["mode"] == "lora" else None,
    )
    if settings["mode"] == "lora":
        same = load_file(directory / "adapters" / "adapter_model.safetensors")
        missing = set_peft_model_state_dict(trainer.model, same)
        if missing.unexpected_keys:
            raise ValueError(f"adapters do not fit: {missing.unexpected_keys[:3]}")
    trainer.create_optimizer_and_scheduler(num_training_steps=1000)
    trainer.current_gradient_accumulation_steps = 1  # what Trainer.train sets before its steps
    return trainer


def make_batch(trainer: DPOTrainer, directory: Path, precomputed: bool) -> dict:
    """The tokens, collated by the trainer's own collator."""
    tokens = np.load(directory / "tokens.npz")
    rows = [
        {"prompt_ids": p.tolist(), "chosen_ids": c.tolist(), "rejected_ids": r.tolist()}
        for p, c, r in zip(tokens["prompt"], tokens["chosen"], tokens["rejected"])
    ]
    batch = trainer.data_collator(rows)
    if precomputed:
        model = trainer.ref_model or trainer.model
        chosen, rejected = trainer.compute_ref_log_probs(model, batch)
        batch |= {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
        trainer.precompute_ref_logps = True
        trainer.ref_model = None
    return batch


if __name__ == "__main__":
    serve(prepare)
