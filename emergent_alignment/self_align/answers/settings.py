"""What stage 2 of SELF-ALIGN reads: instructions are answered under principles."""

from dataclasses import dataclass

from emergent_alignment.settings import Section, setting, share


@dataclass(frozen=True)
class AnswersSection(Section):
    """Stage 2: instructions are answered under principles."""

    principles: str = setting("bundled", "Or a .yaml file, see self_align/answers/principles.yaml.")
    examples: str = setting("bundled", "Or a .yaml file, see self_align/answers/examples.yaml.")
    limit: int = setting(
        0, "So many of stage 1's instructions, spread over them; 0: all.", at_least=0
    )
    max_new_tokens: int = setting(384, "Of thoughts and answer together.", more_than=0)
    temperature: float = setting(0.7, "Of answers.", at_least=0)
    top_p: float = setting(
        0.95, "Answers: among tokens of this much probability.", more_than=0, at_most=1
    )
    batch_size: int = setting(8, "Answers sampled at once.", more_than=0)
    require_principle: bool = setting(True, "Drop answers whose thoughts name no principle.")
    require_end: bool = setting(True, "Drop answers that ran into the limit.")
    min_words: int = setting(8, "Shorter answers are dropped.", at_least=0)
    max_repeated: float = share(0.3, "Of an answer's four-word sequences, so many may be repeats.")
    leak_words: int = setting(
        8, "As many words in a row with principles or examples are a leak.", more_than=0
    )
    max_echo: float = share(
        0.8, "Answers more like their instruction (difflib's ratio over words) are dropped."
    )
    review: bool = setting(False, "The conscience reviews the answers, and replaces or drops them.")
