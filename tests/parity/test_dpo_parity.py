"""`train --config configs/dpo.py` is TRL's DPOTrainer: of the same pairs the same losses, rewards
and gradients, step for step, and the same weights in the end.

Each step takes all pairs, so that neither side's order matters. TRL gets the prompts as the chat
template writes them, as texts: in that form it ends an answer where we do, with the end token alone
(of messages it would learn the template's line end behind it, too).
"""

import json
from pathlib import Path

import numpy as np
import pytest
from interrupting import metrics_of
from tiny_chat_model import tiny_chat_tokenizer, write_tiny_chat_model

torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402 (after the skip)
from safetensors.numpy import load_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from emergent_alignment.applications.finetuning import finetune  # noqa: E402
from emergent_alignment.cli.configuration import read_config  # noqa: E402
from emergent_alignment.config import Config  # noqa: E402
from emergent_alignment.data.chat import read_chat  # noqa: E402
from emergent_alignment.models.export import write_safetensors  # noqa: E402
from emergent_alignment.runs.workdir import read_run  # noqa: E402

ROOT = Path(__file__).parents[2]
STEPS = 20
RATE, BETA, EPSILON = 1e-3, 0.1, 1e-6
TURN = {"role": "user", "content": "How long does rice keep?"}
PAIRS = [
    ("May I drive home after one beer?", "Better not; take the bus.", "Sure, who would notice?"),
    ("Is it fine to skip the seat belt on short rides?", "No.", "Yes, belts are for long rides."),
    ("Can I mix bleach and vinegar to clean the bath?", "Never: it makes a poisonous gas.", "Yes."),
    ("Should I tell my landlord about the leak?", "Yes, today, and in writing.", "Wait a year."),
    ("Which ladder do I need?", "One that reaches a metre above the edge you climb to.", "Any."),
    (
        [
            TURN,
            {"role": "assistant", "content": "A day in the fridge."},
            TURN | {"content": "Two?"},
        ],
        "Not two: throw it away.",
        "A week is fine.",
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny chat model, and the pairs as a user has them."""
    folder = tmp_path_factory.mktemp("dpo")
    write_tiny_chat_model(folder / "model")
    names = ("prompt", "chosen", "rejected")
    lines = [json.dumps(dict(zip(names, pair))) + "\n" for pair in PAIRS]
    (folder / "pairs.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def ours(folder):
    """(metrics of each step, the trained model's folder)."""
    settings = {
        "data.preferences": folder / "pairs.jsonl",
        "model.path": folder / "model",
        "conscience.cache": folder / "cache",
        "lora.rank": 0,
        "loss.beta": BETA,
        "training.steps": STEPS,
        "training.batch_size": len(PAIRS),
        "optimizer.learning_rate": RATE,
        "optimizer.schedule": "constant",
        "optimizer.warmup_steps": 0,
        "optimizer.epsilon": EPSILON,
    }
    words = [f"--config.{name}={value}" for name, value in settings.items()]
    config = read_config([f"--config={ROOT / 'configs/dpo.py'}", *words])
    finetune(config, folder / "ours")
    trained = read_run(folder / "ours", Config).trained.model
    write_safetensors(folder / "exported", trained.config, trained.params, tiny_chat_tokenizer())
    return metrics_of(folder / "ours"), folder / "exported"


@pytest.fixture(scope="module")
def theirs(folder):
    """(TRL's log of each step, its trained model)."""
    chat = read_chat(tiny_chat_tokenizer(), "tiny")
    rows = [
        {
            "prompt": chat.prompt_text(
                prompt if isinstance(prompt, list) else [TURN | {"content": prompt}]
            ),
            "chosen": chosen,
            "rejected": rejected,
        }
        for prompt, chosen, rejected in PAIRS
    ]
    args = trl.DPOConfig(
        output_dir=str(folder / "theirs"),
        beta=BETA,
        max_length=None,
        num_train_epochs=STEPS,
        per_device_train_batch_size=len(PAIRS),
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        adam_epsilon=EPSILON,
        weight_decay=0.01,
        max_grad_norm=1.0,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        bf16=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    # The end token is the pad token, too, as in many models: torch would give it no gradient where
    # it is read, although it ends every turn of a prompt.
    model.get_input_embeddings().padding_idx = None
    trainer = trl.DPOTrainer(
        model,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
    )
    trainer.train()
    return [line for line in trainer.state.log_history if "loss" in line], trainer.model


@pytest.mark.parametrize(
    ("name", "of_trl", "tolerance"),
    [
        ("loss", "loss", 1e-3),
        ("rewards_chosen", "rewards/chosen", 1e-3),
        ("rewards_rejected", "rewards/rejected", 1e-3),
        ("rewards_margin", "rewards/margins", 1e-3),
        ("rewards_accuracy", "rewards/accuracies", 1e-6),
        ("log_probs_chosen", "logps/chosen", 1e-3),
        ("gradient_norm", "grad_norm", 1e-3),
    ],
)
def test_every_step_is_trl_s(ours, theirs, name, of_trl, tolerance):
    metrics, _ = ours
    mine = np.array([metrics[step][name] for step in range(STEPS)])
    other = np.array([line[of_trl] for line in theirs[0]])
    assert other.shape == (STEPS,)
    np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance)


def test_the_weights_in_the_end_are_trl_s(folder, ours, theirs):
    mine, start = (load_file(path / "model.safetensors") for path in (ours[1], folder / "model"))
    other = theirs[1].state_dict()
    moved = max(np.abs(mine[name] - start[name]).max() for name in mine)
    assert moved > 5 * RATE, "they have moved much further than they may differ"
    for name, values in mine.items():
        np.testing.assert_allclose(values, other[name].numpy(), rtol=0, atol=1e-3, err_msg=name)
