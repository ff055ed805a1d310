"""What adversarial training reads beside what every run does."""

from dataclasses import dataclass

from emergent_alignment.runs.config import RunConfig
from emergent_alignment.settings import Section, setting


@dataclass(frozen=True)
class AdversarialSection(Section):
    """Hostile prompts, and the benign ones beside them."""

    prompts: str = setting("attacks", 'Bundled, or a .jsonl file of {"kind", "side", "prompt"}.')
    held_out: tuple[str, ...] = setting(
        ("refusal_suppression", "payload_splitting", "fiction", "output_format"),
        "Kinds of attack that training never sees: what is evaluated.",
    )
    benign_share: float = setting(
        0.5,
        "Of a batch: benign look-alikes, which learn the frozen copy's answers.",
        at_least=0,
        less_than=1,
        words="a share, {at_least:g} or more, under {less_than:g}",
    )
    rounds: int = setting(
        3, "The steps are cut into so many, each with its own pool of attacks.", more_than=0
    )
    pool: int = setting(96, "Hostile prompts of a round, at most.", more_than=0)
    variants: int = setting(
        1, "New wordings that are tried for each attack that succeeded.", at_least=0
    )


@dataclass(frozen=True)
class AdversarialConfig(RunConfig):
    """A run's settings with those of adversarial training."""

    adversarial: AdversarialSection = AdversarialSection()
