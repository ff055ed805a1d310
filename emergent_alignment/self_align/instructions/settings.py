"""What stage 1 of SELF-ALIGN reads: the base model writes instructions."""

from dataclasses import dataclass

from emergent_alignment.settings import Section, setting, share

# A plural counts as its word.
UNSERVABLE = (
    "image", "picture", "photo", "photograph", "graph", "chart", "diagram", "flowchart", "map",
    "plot", "draw", "drawing", "sketch", "logo", "video", "audio", "recording", "file", "pdf",
    "spreadsheet", "screenshot", "attachment", "attached", "upload", "download", "click",
)  # fmt: skip


@dataclass(frozen=True)
class InstructionsSection(Section):
    """Stage 1: the base model writes instructions."""

    seeds: str = setting("bundled", 'Or a .jsonl file of {"instruction"}.')
    kinds: str = setting("bundled", "Of hard questions; or a .jsonl file, see kinds.jsonl.")
    kind_limit: int = setting(0, "So many of the kinds; 0: all.", at_least=0)
    include_seeds: bool = setting(True, "Seeds are among what stage 2 answers.")
    wanted: int = setting(1000, "Instructions, of both generators together.", at_least=1)
    red_team_share: float = share(0.5, "Of them: questions about topics, as many of each kind.")
    rounds: int = setting(200, "At most; those before `wanted` is reached are counted.", at_least=1)
    prompts_per_round: int = setting(32, "Lists that are asked for in a round.", at_least=1)
    examples: int = setting(5, "Shown in a prompt of self-instruct, …", at_least=1)
    own_examples: int = setting(
        2, "… so many of them the model's own, once it has some.", at_least=0
    )
    topics_per_kind: int = setting(10, "Beside the kind's own.", at_least=0)
    topic_rounds: int = setting(5, "Rounds of topics, at most.", at_least=1)
    max_new_tokens: int = setting(256, "Of a list of instructions.", at_least=1)
    max_topic_tokens: int = setting(96, "Of a list of topics.", at_least=1)
    temperature: float = setting(1.0, "Of lists.", at_least=0)
    top_p: float = setting(
        0.98, "Lists: among tokens of this much probability.", more_than=0, at_most=1
    )
    similarity: float = setting(
        0.7,
        "ROUGE-L to any kept one above which an instruction is dropped.",
        more_than=0,
        at_most=1,
    )
    fewest_words: int = setting(4, "Of an instruction.", at_least=1)
    most_words: int = setting(150, "Of an instruction.")
    unservable: tuple[str, ...] = setting(
        UNSERVABLE, "Words of what a text model cannot read or make."
    )
