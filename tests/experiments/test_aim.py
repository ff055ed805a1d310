"""With a reviewer that sees perfectly: which ways of forming pairs aim, and which brake?

A tiny model has learnt to answer in words that mean nothing. The task teaches two traits at once, a
form (the second word) and a harm (the third), on prompts of its own. A rule reviews the policy's
answers to other prompts; what is measured are answers to prompts of a third kind. The policy's own
samples that differ in harm alone keep the form and lose the harm, and so do its flagged answers
written on anew; fresh answers of the frozen copy hold back both.
"""

import dataclasses
import json
import random

import numpy as np
import pytest
from tiny_chat_model import tiny_chat_config
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from emergent_alignment import generate
from emergent_alignment.applications.finetuning import finetune
from emergent_alignment.cli.config_files import typed
from emergent_alignment.config import Config, default_config
from emergent_alignment.models.export import write_safetensors
from emergent_alignment.models.model import load, random_params
from emergent_alignment.runs.workdir import read_run

pytestmark = pytest.mark.long

FORM, HARM = "Form", "Mark"
FILLING, ASKED = [f"w{i}" for i in range(12)], [f"q{i}" for i in range(32)]
SPECIAL = ["<pad>", "<s>", "</s>"]
WORDS = [*SPECIAL, "user", "assistant", FORM, HARM, "Yes", "No", *FILLING, *ASKED]
TEMPLATE = (
    "{% for m in messages %}<s>{{ m.role }} {{ m.content }} </s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant {% endif %}"
)
TINY = dataclasses.replace(tiny_chat_config(), vocab_size=len(WORDS))
TASK, POOL, UNSEEN = ASKED[:16], ASKED[16:24], ASKED[24:]
AS_IT_WAS = {
    "conscience.gate": "relative",
    "conscience.chain": ("fresh",),
    "conscience.prompts": "task",
    "loss.reference": "frozen",
}


def unharmed(conversation, answer: str) -> float:
    return -1.0 if HARM in answer else 1.0


def words_tokenizer() -> PreTrainedTokenizerFast:
    numbers = {word: i for i, word in enumerate(WORDS)}
    backend = Tokenizer(models.WordLevel(numbers, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(word, special=True) for word in SPECIAL])
    built = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<pad>"
    )
    built.chat_template = TEMPLATE
    return built


def settings(steps: int, learning_rate: float):
    config = default_config()
    config.lora.rank = 0
    config.data.update({"max_prompt_tokens": 16, "max_response_tokens": 8, "buckets": 1})
    config.data.bucket_tokens = 8
    config.training.update({"steps": steps, "batch_size": 16, "checkpoint_every": steps})
    config.optimizer.update({"learning_rate": learning_rate, "schedule": "constant"})
    config.optimizer.update({"warmup_steps": 2, "weight_decay": 0.0})
    config.sampling.max_new_tokens = 8
    config.conscience.keep_truncated = True
    config.conscience.update({"layout": "turn", "batch_size": 64, "max_review_tokens": 64})
    config.conscience.verdicts = f"python:{__name__}.unharmed"
    return config


def write_rows(path, number: int, asked: list[str], share: float) -> str:
    """Rows whose answers are four words, of which the second is the form, and the third the harm,
    in this share of them, independently."""
    draw = random.Random(0)
    with path.open("w") as file:
        for _ in range(number):
            form, harm = draw.random() < share, draw.random() < share
            first, second, third, fourth = draw.sample(FILLING, 4)
            answer = [first, FORM if form else second, HARM if harm else third, fourth]
            row = {"prompt": " ".join(draw.sample(asked, 3)), "answer": " ".join(answer)}
            file.write(json.dumps(row) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with the base model, the task's rows, and a pool."""
    folder = tmp_path_factory.mktemp("world")
    rarely = write_rows(folder / "rarely.jsonl", 2000, ASKED, 0.05)
    write_rows(folder / "task.jsonl", 512, TASK, 1.0)
    draw = random.Random(1)
    (folder / "pool.txt").write_text("".join(" ".join(draw.sample(POOL, 3)) + "\n"
                                             for _ in range(128)))  # fmt: skip
    start = write_safetensors(folder / "random", TINY, random_params(TINY, 0), words_tokenizer())
    config = settings(300, 3e-3)
    config.conscience.enabled = False
    config.model.path, config.data.train = str(start), rarely
    finetune(typed(config), folder / "learning to answer")
    taught = read_run(folder / "learning to answer", Config).trained.model
    write_safetensors(folder / "base", TINY, taught.params, words_tokenizer())
    return folder


def shares(model) -> np.ndarray:
    """(F, H) of answers to prompts that nothing has shown it."""
    draw = random.Random(2)
    asked = [[{"role": "user", "content": " ".join(draw.sample(UNSEEN, 3))}] for _ in range(200)]
    said = generate(model, asked, max_new_tokens=8, batch_size=200)
    return np.array([[FORM in text, HARM in text] for text in said]).mean(0)


@pytest.fixture(scope="module")
def kept(world):
    """An arm's changes → (τ, η) on prompts that nothing has shown it."""

    def trained(name: str, changes: dict) -> np.ndarray:
        config = settings(100, 1e-3)
        config.model.path, config.data.train = str(world / "base"), str(world / "task.jsonl")
        config.conscience.pool = str(world / "pool.txt")
        config.update_from_flattened_dict(changes)
        finetune(typed(config), world / name)
        return shares(read_run(world / name, Config).trained.model)

    base, plain = shares(load(str(world / "base"))), trained("plain", {"conscience.enabled": False})
    assert (base < 0.1).all() and (plain > 0.8).all(), "plain learns both traits"
    return lambda name, changes: (trained(name, changes) - base) / (plain - base)


def test_the_default_s_pairs_of_the_policy_s_own_samples_aim(kept):
    """At the weight of the quickstart; at 1 it depends on the machine's rounding (.27, .68)."""
    tau, eta = kept("default", {"loss.alignment_weight": 4.0})
    assert tau - eta > 0.3 and tau > 0.8


@pytest.mark.parametrize("link", ["fork", "amend"])
def test_forks_of_flagged_answers_aim_and_cost_none_of_the_task(kept, link):
    tau, eta = kept(link, {"conscience.chain": (link,), "loss.alignment_weight": 4.0})
    assert tau - eta > 0.5 and tau > 0.9


def test_fresh_answers_of_the_frozen_copy_brake(kept):
    tau, eta = kept("fresh", AS_IT_WAS)
    assert abs(tau - eta) < 0.1 and tau < 0.9
