"""What config.self_align.reinforcement may say, and the files of principles that it names."""

from importlib import resources

from emergent_alignment.data.principles import Principle, principles_of
from emergent_alignment.errors import UserError
from emergent_alignment.self_align.reinforcement.rewards import reward_function
from emergent_alignment.self_align.settings import SelfAlignConfig
from emergent_alignment.settings import check_settings

_SECTION = "config.self_align.reinforcement"


def check_reinforcement(config: SelfAlignConfig) -> None:
    """Raise UserError for the first setting that cannot be meant."""
    wanted = config.self_align.reinforcement
    check_settings(wanted, _SECTION)
    reward_function(wanted.reward)
    if wanted.form == "rlhf":
        _check_policy(config)


def _check_policy(config: SelfAlignConfig) -> None:
    wanted, policy = config.self_align.reinforcement, config.self_align.reinforcement.policy
    compared = wanted.algorithm != "ppo" or wanted.reward == "principles"
    if policy.samples < 2 and compared:
        who = wanted.algorithm if wanted.algorithm != "ppo" else "the reward by principles"
        raise UserError(
            f"{_SECTION}.policy.samples: {who} compares the answers to a prompt; set 2 or more"
        )
    if policy.prompts_per_rollout % policy.minibatches:
        raise UserError(
            f"{_SECTION}.policy.minibatches: {policy.minibatches} does not divide "
            f"prompts_per_rollout {policy.prompts_per_rollout}"
        )
    size = policy.prompts_per_rollout // policy.minibatches
    if size % config.training.accumulation:
        raise UserError(
            f"config.training.accumulation: {config.training.accumulation} does not divide the "
            f"{size} prompts of a minibatch ({_SECTION}.policy)"
        )
    if config.model.frozen_dtype and not policy.lora_rank:
        raise UserError(
            f"{_SECTION}.policy.lora_rank: 0 trains all parameters, which would start from the "
            'base as it is on disk, not from the engraved model; set config.model.frozen_dtype="" '
            "or a rank"
        )


def read_guards(source: str) -> tuple[Principle, ...]:
    """The principles against hacking the reward, bundled or of a file; none where it is ""."""
    if not source:
        return ()
    return principles_of(source, resources.files(__package__) / "guards.yaml")
