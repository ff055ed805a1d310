"""What the four stages of SELF-ALIGN read beside what every run does."""

from dataclasses import dataclass

from emergent_alignment.runs.config import RunConfig
from emergent_alignment.self_align.answers.settings import AnswersSection
from emergent_alignment.self_align.instructions.settings import InstructionsSection
from emergent_alignment.self_align.reinforcement.settings import ReinforcementSection
from emergent_alignment.settings import Section, setting
from emergent_alignment.training.optimizer import RateSchedule


@dataclass(frozen=True)
class EngravingSection(Section):
    """Stage 3: the base model is fine-tuned on the answers alone."""

    steps: int = setting(0, "0: as many as `epochs` take.", at_least=0)
    epochs: float = setting(1.0, "Over the answers.", at_least=0)
    batch_size: int = setting(32, "Answers a step.", more_than=0)
    learning_rate: float = setting(1e-4, "At its peak.", at_least=0)
    schedule: RateSchedule = setting("cosine", "How it falls after the warm-up.")
    lora_rank: int = setting(16, "0 trains all parameters.", at_least=0)
    conscience: bool = setting(False, "Its pairs in the same step, as config.conscience says.")


@dataclass(frozen=True)
class SelfAlignSection(Section):
    """`self-align`, stage by stage; see docs/self_align.md."""

    instructions: InstructionsSection = InstructionsSection()
    answers: AnswersSection = AnswersSection()
    engraving: EngravingSection = EngravingSection()
    reinforcement: ReinforcementSection = ReinforcementSection()


@dataclass(frozen=True)
class SelfAlignConfig(RunConfig):
    """A run's settings with those of the stages."""

    self_align: SelfAlignSection = SelfAlignSection()
