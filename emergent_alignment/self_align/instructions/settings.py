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

    seeds: str = setting(
        "bundled", 'Seed instructions: bundled, or a .jsonl file of {"instruction"}.'
    )
    kinds: str = setting(
        "bundled", "Kinds of hard question: bundled, or a .jsonl file like the bundled kinds.jsonl."
    )
    kind_limit: int = setting(0, "Use so many of the kinds; 0: all.", at_least=0)
    include_seeds: bool = setting(True, "Stage 2 answers the seeds, too.")
    wanted: int = setting(
        1000, "How many instructions are wanted, of both generators together.", at_least=1
    )
    red_team_share: float = share(
        0.5, "Share of them that is questions about topics, as many of each kind."
    )
    rounds: int = setting(200, "Rounds at most, also where `wanted` is not reached.", at_least=1)
    prompts_per_round: int = setting(32, "Lists that are asked for in a round.", at_least=1)
    examples: int = setting(5, "Instructions that a prompt of self-instruct shows, …", at_least=1)
    own_examples: int = setting(
        2, "… and how many of them are the model's own, once it has some.", at_least=0
    )
    topics_per_kind: int = setting(
        10, "Topics that are wanted of each kind, beside its own.", at_least=0
    )
    topic_rounds: int = setting(5, "Rounds of topics, at most.", at_least=1)
    max_new_tokens: int = setting(256, "Tokens of a list of instructions, at most.", at_least=1)
    max_topic_tokens: int = setting(96, "Tokens of a list of topics, at most.", at_least=1)
    temperature: float = setting(1.0, "The temperature of lists.", at_least=0)
    top_p: float = setting(
        0.98,
        "Lists are drawn among the likeliest tokens of this much probability.",
        more_than=0,
        at_most=1,
    )
    similarity: float = setting(
        0.7,
        "Instructions whose ROUGE-L to a kept one is higher are dropped.",
        more_than=0,
        at_most=1,
    )
    fewest_words: int = setting(4, "Words of the shortest instruction that is kept.", at_least=1)
    most_words: int = setting(150, "Words of the longest instruction that is kept.", at_least=1)
    unservable: tuple[str, ...] = setting(
        UNSERVABLE,
        "Instructions with a word of these are dropped: a text model cannot read or make it.",
    )
