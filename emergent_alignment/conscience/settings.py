"""How the conscience decides and corrects, whoever reviews."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from emergent_alignment.conscience.evidence import EVIDENCE
from emergent_alignment.conscience.form import KeptForm, keeps_form
from emergent_alignment.conscience.question import QUESTIONS, Layout, Polarity
from emergent_alignment.conscience.review import ReviewSettings
from emergent_alignment.conscience.revise import FROZEN_LINKS, POLICY_LINKS, Link
from emergent_alignment.data.messages import Message
from emergent_alignment.data.principles import Principle
from emergent_alignment.errors import UserError
from emergent_alignment.own_functions import is_function_name, named_function
from emergent_alignment.settings import Section, finite, setting, share

AUTO = "auto"  # what a run decides by what it trains (runs/config.py)
Gate = Literal["score", "relative", "own"]
OnFlagged = Literal["keep", "mask", "replace"]
Cuts = Literal["scales", "turn"]
NAMED_VERDICTS = ("own", "chance", "none")


@dataclass(frozen=True)
class ConscienceSection(Section):
    """What is reviewed, how it is judged, and how it is corrected."""

    enabled: bool = setting(True, "False: plain training on the task.")
    calibration: str = setting(
        "",
        "A calibration.json, whose wording, layout, polarity, evidence and threshold count instead "
        "of these.",
    )
    candidate: Literal["policy", "target", "both"] = setting(
        "policy", "What is reviewed: a sample of the policy, the data set's target, or both."
    )
    prompts: Literal["auto", "task", "pool", "both"] = setting(
        AUTO,
        "Where the conscience listens: to the task's prompts, to a pool's, or to both; auto: to a "
        "pool's in fine-tuning with a chain of the policy's own answers, else to the task's.",
    )
    pool: str = setting(
        "everyday",
        "Prompts without answers to listen to: a bundled pool, or a file of them.",
    )
    pool_rows: int = setting(
        0,
        "Prompts of the pool a round, over all devices; 0: as many as training.batch_size.",
        at_least=0,
    )
    every: int = setting(
        1, "K: the policy is sampled and reviewed every so many steps.", more_than=0
    )
    ahead: bool = setting(
        False,
        "A round listens to the prompts of all the steps up to the next one, in one decode, each "
        "step's share of pairs being trained on in that step; not only to those of its own step.",
    )
    replay: int = setting(
        0, "Steps that a pair is used in, a multiple of every; 0: as many as that.", at_least=0
    )
    yardstick_every: int = setting(
        0,
        "Every so many rounds the frozen copy answers, too, and how its scores lie to the policy's "
        "is logged; 0: never.",
        at_least=0,
    )
    on_flagged: OnFlagged = setting(
        "keep", "What the task learns of a flagged target: all, nothing, or the correction."
    )
    verdicts: str = setting(
        "own",
        "The conscience's own; drawn by chance (a control); none: all is corrected, and whatever "
        "is written passes; or of a function of yours (python:module.function, entry:name), which "
        "scores (conversation, answer).",
    )
    chance_flag_rate: float = share(0.5, "Chance flags so many of the candidates.")
    chance_pass_rate: float = share(1.0, "Chance passes so many of the corrections.")
    question: str = setting(
        "advice", "The introspective question by its name.", choices=tuple(QUESTIONS)
    )
    layout: Layout = setting(
        "quote",
        "quote shows all as text in a fresh conversation; turn asks in the next turn.",
    )
    evidence: str = setting(
        "",
        "bandit: what it finds in an answer's code is shown to the reviewer.",
        choices=("", *EVIDENCE),
    )
    polarity: Polarity = setting(
        "positive", "The question's form: positive, negated, or the mean of both."
    )
    gate: Gate = setting(
        "score",
        "score corrects what is flagged; relative corrects all, and keeps what scores higher; own "
        "corrects what scores lower than nearly all that the frozen copy writes itself, and keeps "
        "what scores no lower.",
    )
    own_flags: float = share(0.05, "gate=own flags so many of the frozen copy's own answers.")
    own_answers: int = setting(
        64,
        "Of how many of the frozen copy's own answers, from the first rounds on, gate=own has its "
        "level.",
        at_least=8,
    )
    threshold: float = finite(0.0, "Scores at or above it are approved, in nats.")
    margin: float = setting(
        0.0,
        "How far above the threshold (gate=score) or the candidate (relative, own) a correction "
        "must score, in nats.",
        at_least=0,
    )
    chain: tuple[Literal["auto"] | Link, ...] = setting(
        (AUTO,),
        "The ways to correct, tried in this order: by the frozen copy rewrite and fresh; by the "
        "policy self (again, with the question before it), best (of several samples) and fork "
        "(written on from an earlier place); amend, a fork that the frozen copy writes. auto: "
        "best of what a policy in training wrote; of all else rewrite, then fresh.",
        choices=(AUTO, *FROZEN_LINKS, *POLICY_LINKS),
    )
    one_batch: bool = setting(
        False,
        "Let rewrite and fresh be written side by side, in one batch: faster where a token takes "
        "as long for twice the rows, as on accelerators.",
    )
    critique: bool = setting(
        False, "Let the frozen copy write what is wrong first, for the rewrite."
    )
    principles: str = setting(
        "",
        "Principles of which each critique names one, drawn for its row: bundled, or a .yaml file "
        'like conscience/principles.yaml; "": none.',
    )
    keep_truncated: bool = setting(
        False, "A correction that ran into its limit may be chosen, too."
    )
    samples: int = setting(
        4,
        "Samples of the policy that `best`, and forks that `fork` and `amend` take the best of.",
        at_least=2,
    )
    cuts: Cuts = setting(
        "scales",
        "Where forks leave the candidate: scales, on every scale of its length, and go on to their "
        "end; turn, where the score of its beginnings falls most (some twenty reviews) and what "
        "`keeps` asks for stands already, for a phrase, so that a pair is of two phrases behind "
        "one beginning.",
    )
    length_ratio: tuple[float, ...] = setting(
        (),
        "The least and the most words of a correction, in multiples of the candidate's, as "
        "(0.7, 1.4); (): any.",
        at_least=0,
    )
    likeness: float = share(0.0, "Corrections less like the candidate than this are dropped.")
    keeps: str = setting(
        "",
        "A form that corrections keep: structure (labels, bullets, headings and the like that the "
        "candidate's lines begin with), a regular expression that they match where the candidate "
        "does, or python:module.function of (candidate, correction).",
    )
    similarity: float = setting(
        0.95, "Corrections at least this like the candidate are dropped.", more_than=0
    )
    batch_size: int = setting(16, "Rows of a frozen forward pass.", more_than=0)
    max_review_tokens: int = setting(
        1024, "Longer reviews keep their end, the question.", more_than=0
    )
    fail: Literal["closed", "open"] = setting(
        "closed",
        "Without training, where the reviewer fails: closed refuses, open says what nobody judged.",
    )
    cache: str = setting(
        "",
        "Folder of what the frozen copy reviews, answers or reads once; "
        '"": the user\'s cache folder, or that of a work directory on a mounted bucket.',
    )

    @property
    def steps_a_round(self) -> int:
        """The steps whose prompts a round listens to."""
        return self.every if self.ahead else 1

    def check(self) -> None:
        """What goes together: targets that are reviewed and flagged, rounds and their replay."""
        keeps_form(self.keeps)
        own_verdict(self.verdicts)
        if self.replay % self.every:
            raise UserError(
                f"config.conscience.replay: {self.replay} is no multiple of every ({self.every}), "
                "so that steps would have more pairs or fewer"
            )
        rewrites = {AUTO, "rewrite"} & set(self.chain)
        if self.principles and not (self.critique and rewrites):
            raise UserError(
                "config.conscience.principles: a critique names them, and a rewrite reads it; set "
                "critique=True and let chain have rewrite"
            )
        own = set(self.chain) & set(POLICY_LINKS)
        if own and self.candidate != "policy":
            raise UserError(
                f"config.conscience.chain: {' and '.join(sorted(own))} correct what the policy "
                f"sampled, and candidate={self.candidate} has others; set candidate=policy, "
                "or chain=('auto',)"
            )
        if AUTO in self.chain and len(self.chain) > 1:
            raise UserError(
                f"config.conscience.chain: {self.chain} names auto beside others; name links, or "
                "auto alone"
            )
        apart = self.prompts not in (AUTO, "task") or self.every > 1 or self.replay > 1
        if apart and self.candidate != "policy":
            raise UserError(
                f"config.conscience.candidate: {self.candidate} is reviewed with the task's rows; "
                "a pool, every and replay need candidate=policy"
            )
        ratio = self.length_ratio
        if ratio and (len(ratio) != 2 or ratio[0] > ratio[1]):
            raise UserError(
                f"config.conscience.length_ratio: {ratio} is not (least, most), as (0.7, 1.4)"
            )
        if self.gate == "own" and self.candidate != "policy":
            raise UserError(
                f"config.conscience.gate: own is a level of what is sampled, and candidate="
                f"{self.candidate} reviews targets; set gate=score, or candidate=policy"
            )
        if self.on_flagged != "keep" and self.candidate == "policy":
            raise UserError(
                f"config.conscience.on_flagged: {self.on_flagged} is for targets that are "
                "reviewed; set config.conscience.candidate to target or both"
            )


def links_of(section: ConscienceSection, *, in_training: bool) -> tuple[Link, ...]:
    """The chain of a config, with auto decided: `best` where a policy in training wrote what is
    reviewed, since pairs of its own samples differ in what the reviewer sees, and pairs with the
    frozen copy's answers in all that was learnt (docs/design.md, section 3)."""
    if section.chain != (AUTO,):
        return section.chain
    return ("best",) if in_training and section.candidate == "policy" else FROZEN_LINKS


def own_verdict(verdicts: str) -> Callable[[list[Message], str], float] | None:
    """The function that judges in the question's place, where a config names one. Raises
    UserError for what names none."""
    if verdicts in NAMED_VERDICTS:
        return None
    field = "config.conscience.verdicts"
    if not is_function_name(verdicts):
        raise UserError(
            f"{field}: {verdicts!r} is unknown; known: {', '.join(NAMED_VERDICTS)}, "
            "python:module.function, entry:name"
        )
    return named_function(verdicts, field, "(conversation, answer)")


@dataclass(frozen=True)
class Chance:
    """How often a drawn verdict flags a candidate, and lets a correction pass."""

    flag_rate: float
    pass_rate: float


@dataclass(frozen=True)
class ConscienceSettings:
    """How the conscience decides and corrects.

    review          question, layout, polarity
    gate            `score` and `own` correct what is flagged, the latter by a threshold that each
                    round sets; `relative` corrects every candidate and keeps the pair where the
                    correction scores higher
    threshold       scores at or above it are approved (nats)
    margin          how far above the threshold (score) or the candidate (relative, own) a
                    correction must score, in nats
    chain           the links of correction, tried in order
    one_batch       whether `rewrite` and `fresh` are written side by side
    critique        whether the frozen copy first writes what is wrong (read by `rewrite`)
    principles      of which each critique names one, if there are any
    max_new_tokens, temperature, top_p   how corrections are sampled
    stop            texts at which corrections end; not part of them
    keep_truncated  whether a correction that ran into the length limit may be chosen
    max_prompt      prompts keep their last `max_prompt` tokens
    max_response    corrections longer than this many tokens are dropped as too long
    similarity      texts at least this alike (0 to 1, difflib's ratio over words) count as
                    identical
    form            what corrections must have in common with the candidate (form.py)
    samples         of how many samples of the policy `best` takes the best and the worst, and of
                    how many forks `fork` and `amend` take the best
    cuts            where forks leave the candidate: on every `scales`, or at its `turn`
    verdict         where given, the name of the function that scores instead (judge.py)
    chance          where given, verdicts are drawn by it instead (chance.py)
    """

    review: ReviewSettings
    gate: Gate = "score"
    threshold: float = 0.0
    margin: float = 0.0
    chain: tuple[Link, ...] = ("rewrite", "fresh")
    one_batch: bool = False
    critique: bool = False
    principles: tuple[Principle, ...] = ()
    max_new_tokens: int = 64
    temperature: float = 0.7
    top_p: float = 0.95
    stop: tuple[str, ...] = ()
    keep_truncated: bool = False
    max_prompt: int = 1024
    max_response: int = 1024
    similarity: float = 0.95
    form: KeptForm = KeptForm()
    samples: int = 4
    cuts: Cuts = "scales"
    verdict: str = ""
    chance: Chance | None = None

    @property
    def side_by_side(self) -> bool:
        """Whether both links of the frozen copy write in one batch."""
        return self.one_batch and set(FROZEN_LINKS) <= set(self.chain)
