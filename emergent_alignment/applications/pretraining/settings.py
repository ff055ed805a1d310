"""What training from raw text reads beside what every run does."""

from dataclasses import dataclass

from emergent_alignment.runs.config import RunConfig
from emergent_alignment.settings import Section, setting, share


@dataclass(frozen=True)
class RandomSection(Section):
    """The sizes of a model that is trained from random weights."""

    layers: int = setting(0, "Layers; 0: from config.model.path instead.", at_least=0)
    width: int = setting(256, "Of the hidden states.", more_than=0)
    heads: int = setting(4, "Heads of attention; divides width.", more_than=0)
    kv_heads: int = setting(4, "Heads of keys and values.", more_than=0)
    inner: int = setting(704, "Width of the MLP.", more_than=0)
    vocabulary: int = setting(
        4096, "Tokens of a BPE of the corpus; 0: config.model.path's own tokenizer.", at_least=0
    )


@dataclass(frozen=True)
class PretrainingSection(Section):
    """Raw text: its source, its windows, and which of them are reviewed."""

    corpus: str = setting(
        "standard_library",
        "The running Python's standard library; a file or folder of text; a .parquet file or a "
        "folder of them; a `datasets` name, which is streamed (split: data.train_split).",
    )
    text_column: str = setting("text", "The column of parquet and of `datasets`.")
    block_documents: int = setting(1024, "Documents shuffled and packed together.", more_than=0)
    heldout_share: float = setting(
        0.05, "Share of the documents that is held out, for evaluation.", at_least=0, less_than=1
    )
    window_tokens: int = setting(512, "Tokens of a window.", more_than=0)
    random: RandomSection = RandomSection()
    review_share: float = share(0.125, "Of windows: a prefix is continued, and that is reviewed.")
    matched: str = setting("harmful_advice", "Safe and harmful answers, to calibrate on.")
    calibrate_every: int = setting(100, "Steps, until there is a frozen copy.", more_than=0)
    auc: float = share(0.7, "Of calibration, from which on the policy is taken as the frozen copy.")
    refresh_every: int = setting(
        0, "Steps after which the frozen copy is taken anew; 0: never.", at_least=0
    )


@dataclass(frozen=True)
class PretrainingConfig(RunConfig):
    """A run's settings with those of raw text."""

    pretraining: PretrainingSection = PretrainingSection()
