"""What stage 4 of SELF-ALIGN reads: preferences, a reward, a policy, and verbose cloning."""

from dataclasses import dataclass
from typing import Literal

from emergent_alignment.self_align.reinforcement.comparing import Orders
from emergent_alignment.self_align.reinforcement.rl_losses import Normalization, RatioLevel, Scale
from emergent_alignment.settings import Section, finite, setting, share


@dataclass(frozen=True)
class PreferencesSection(Section):
    """Comparisons that the reward model is trained on."""

    source: str = setting(
        "principles",
        "principles: made by them; or a .jsonl file of {prompt, chosen, rejected}, or a bundled "
        "scenario.",
    )
    limit: int = setting(
        0, "Use so many prompts (or rows of the file), spread over them; 0: all.", at_least=0
    )
    max_new_tokens: int = setting(
        128, "Tokens of each of the two answers to a prompt, at most.", more_than=0
    )
    temperature: float = setting(1.0, "The temperature of the two answers.", at_least=0)
    top_p: float = setting(
        1.0,
        "Answers are drawn among the likeliest tokens of this much probability.",
        more_than=0,
        at_most=1,
    )
    principles: int = setting(
        3, "Principles that are drawn for each prompt (or comparison).", more_than=0
    )
    negated_share: float = share(
        0.5, "Share of them by which the answer that breaks the principle is preferred."
    )
    orders: Orders = setting(
        "agree",
        "agree: no preference where the two orders of the answers disagree; average: for small "
        "models, which prefer a place.",
    )
    batch_size: int = setting(8, "Comparisons of a forward pass.", more_than=0)


@dataclass(frozen=True)
class RewardModelSection(Section):
    """The reward model's training."""

    backbone: Literal["lora", "frozen"] = setting(
        "lora", "What is trained beside the head: adapters, or nothing."
    )
    epochs: float = setting(1.0, "Passes over the pairs.", more_than=0)
    batch_size: int = setting(16, "Pairs a step.", more_than=0)
    learning_rate: float = setting(1e-4, "The learning rate at its peak.", at_least=0)
    held_out_share: float = setting(
        0.1, "Share of the pairs on which the accuracy is measured.", more_than=0, less_than=1
    )


@dataclass(frozen=True)
class PolicySection(Section):
    """The policy's optimisation."""

    rollouts: int = setting(
        100, "Rollouts in all, each with the policy of its first step.", more_than=0
    )
    prompts_per_rollout: int = setting(32, "Prompts that a rollout answers.", more_than=0)
    samples: int = setting(
        1, "Answers to each prompt; grpo, dpo and principles need 2.", more_than=0
    )
    epochs: int = setting(2, "Passes over a rollout; 1 with dpo is fully online.", more_than=0)
    minibatches: int = setting(
        2, "Parts that the prompts are cut into: steps an epoch.", more_than=0
    )
    max_new_tokens: int = setting(128, "Tokens of an answer, at most.", more_than=0)
    learning_rate: float = setting(2e-5, "The learning rate at its peak.", at_least=0)
    lora_rank: int = setting(16, "The rank of the adapters; 0 trains all parameters.", at_least=0)
    kl_weight: float = setting(
        0.01, "β of the KL to the engraved model; dpo: see config.loss.", at_least=0
    )
    clip: float = setting(0.2, "ε: how far the ratio to the rollout's policy counts.", more_than=0)
    clip_high: float = setting(0.2, "How far the ratio counts upwards.", more_than=0)
    value_clip: float = setting(0.2, "How far a value may move from the rollout's.", more_than=0)
    value_weight: float = setting(0.1, "Weight of the value loss beside the policy's.", at_least=0)
    discount: float = setting(1.0, "γ: what a later reward is worth.", at_least=0, at_most=1)
    decay: float = setting(1.0, "λ of generalised advantage estimation.", at_least=0, at_most=1)
    normalization: Normalization = setting(
        "grpo", "How grpo averages its loss over tokens and answers."
    )
    ratio: RatioLevel = setting(
        "token", "The ratio that grpo clips: each token's, or the whole answer's."
    )
    scale: Scale = setting("group", "grpo divides by the group's deviation; none: it does not.")
    entropy_weight: float = setting(0.0, "Weight of a bonus for entropy.", at_least=0)


@dataclass(frozen=True)
class ShapingSection(Section):
    """What is added to the reward's score."""

    score_clip: float = setting(
        3.0, "How far a score may be from the rollout's mean, in deviations.", more_than=0
    )
    truncation_penalty: float = setting(
        1.0, "Taken off an answer that ran into the limit.", at_least=0
    )
    repetition_penalty: float = setting(
        1.0, "Taken off, times an answer's share of repeated four-word sequences.", at_least=0
    )
    length_bonus: float = finite(
        0.0, "Added, times an answer's share of max_new_tokens; may be negative."
    )
    guards: str = setting(
        "bundled", 'Principles against hacking the reward: bundled, or a .yaml file; "": none.'
    )


@dataclass(frozen=True)
class VerboseSection(Section):
    """Verbose cloning."""

    persona: str = setting("bundled", "Who answers thoroughly: bundled, or a text file.")
    limit: int = setting(0, "Answer so many instructions, spread over them; 0: all.", at_least=0)
    max_new_tokens: int = setting(384, "Tokens of a thorough answer, at most.", more_than=0)
    min_words: int = setting(40, "Answers of fewer words are dropped.", at_least=0)


@dataclass(frozen=True)
class ReinforcementSection(Section):
    """Stage 4: preferences, a reward, and a policy that is optimised for it."""

    form: Literal["rlhf", "verbose"] = setting(
        "rlhf",
        "rlhf optimises a policy; verbose lets the base learn the engraved model's long answers.",
    )
    algorithm: Literal["ppo", "grpo", "dpo"] = setting(
        "ppo", "How the policy is optimised; dpo is online, on this package's own pairs."
    )
    reward: str = setting(
        "model",
        "What scores answers: model, one trained on preferences; principles, comparisons by "
        "principle; or a python:module.function of (conversation, answer).",
    )
    prompts: str = setting(
        "", 'What is answered: a .jsonl or text file; "": stage 1\'s instructions.'
    )
    prompt_limit: int = setting(0, "Use so many of them, spread over the file; 0: all.", at_least=0)
    principles: str = setting(
        "bundled", "The principles that the frozen model prefers by: bundled, or a .yaml file."
    )
    preferences: PreferencesSection = PreferencesSection()
    reward_model: RewardModelSection = RewardModelSection()
    policy: PolicySection = PolicySection()
    shaping: ShapingSection = ShapingSection()
    verbose: VerboseSection = VerboseSection()
