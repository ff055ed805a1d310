"""The settings that every run reads. A feature's own config (adversarial, pretraining, …) adds its
section to them, and config.py has all."""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from emergent_alignment.conscience.calibration import CalibrationSection
from emergent_alignment.conscience.revise import FORK_LINKS, POLICY_LINKS
from emergent_alignment.conscience.settings import AUTO, ConscienceSection, links_of
from emergent_alignment.data.settings import DataSection
from emergent_alignment.errors import UserError
from emergent_alignment.generation.endpoint import EndpointSection
from emergent_alignment.generation.rollout_server import RolloutSection
from emergent_alignment.losses import PreferenceKind
from emergent_alignment.models.frozen import FROZEN_DTYPES
from emergent_alignment.models.lora import LoraConfig
from emergent_alignment.parallel.mesh import MeshSection
from emergent_alignment.runs.price import PriceSection
from emergent_alignment.runs.steering import SteeringSection
from emergent_alignment.settings import Section, changed, setting, value_of
from emergent_alignment.training.loop import TrainingSection
from emergent_alignment.training.optimizer import OptimizerSection

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class ModelSection(Section):
    """The model that a run starts from."""

    path: str = setting(
        "default",
        "Directory or hub id of safetensors, a .gguf file, or default: SmolLM2-135M-Instruct.",
    )
    dtype: Dtype = setting("float32", "The dtype of activations and of what is computed.")
    param_dtype: Dtype = setting("float32", "The dtype that parameters are held in.")
    frozen_dtype: str = setting(
        "",
        'The dtype that frozen parameters are held in; "": that of param_dtype.',
        choices=FROZEN_DTYPES,
    )
    chat_template: str = setting(
        "", "Jinja text or file, for tokenizers without a template of their own."
    )


@dataclass(frozen=True)
class SamplingSection(Section):
    """How candidates and their corrections are sampled."""

    engine: Literal["own", "endpoint"] = setting(
        "own",
        "Who samples for the policy: this program, or a server of yours (sampling.endpoint).",
    )
    max_new_tokens: int = setting(
        64, "Tokens of a candidate, and of a correction, at most.", more_than=0
    )
    temperature: float = setting(
        1.0, "The temperature of candidates; 0 takes the likeliest token.", at_least=0
    )
    top_p: float = setting(
        1.0,
        "Candidates are drawn among the likeliest tokens of this much probability.",
        more_than=0,
        at_most=1,
    )
    top_k: int = setting(
        0, "Candidates are drawn among so many likeliest tokens; 0: all.", at_least=0
    )
    revision_temperature: float = setting(0.7, "The temperature of corrections.", at_least=0)
    revision_top_p: float = setting(
        0.95,
        "Corrections are drawn among the likeliest tokens of this much probability.",
        more_than=0,
        at_most=1,
    )
    endpoint: RolloutSection = RolloutSection()


@dataclass(frozen=True)
class LossSection(Section):
    """The terms of the loss and their weights."""

    kind: PreferenceKind = setting(
        "sigmoid", "The preference loss by its name (losses.PREFERENCE_LOSSES)."
    )
    beta: float = setting(0.1, "β: how steep the preference loss is.", more_than=0)
    label_smoothing: float = setting(
        0.0, "Share of pairs that are taken to be the wrong way round.", at_least=0, less_than=0.5
    )
    normalize: bool = setting(
        False, "Compare the mean instead of the sum of a response's log-probs."
    )
    reference: Literal["auto", "frozen", "policy"] = setting(
        AUTO,
        "Whose log-probs a pair is compared with: the frozen copy's, or those of the policy that "
        "wrote it (no anchor); auto: policy where it wrote both answers.",
    )
    alignment_weight: float | Literal["auto"] = setting(
        1.0,
        "λ: weight of the preference loss; auto moves it (loss.price) so that what the policy "
        "writes scores no worse than what the frozen copy writes.",
        at_least=0,
    )
    chosen_nll_weight: float = setting(
        0.0, "α: weight of the chosen answers' negative log-likelihood.", at_least=0
    )
    kl_weight: float = setting(
        0.0, "Weight of the KL from the frozen copy, on what the task learns.", at_least=0
    )
    kl_on: Literal["task", "pool"] = setting(
        "task",
        "Where the KL holds the policy: on what the task learns; or, in plain training, on the "
        "frozen copy's own answers to conscience.pool, conscience.pool_rows a step.",
    )
    load_balance_weight: float = setting(
        0.0,
        "Weight of the load balance of a mixture's experts (load_balance in the log); 0.001 is "
        "usual where the routers are trained.",
        at_least=0,
    )
    chunk_size: int = setting(256, "Tokens that meet the vocabulary at once.", more_than=0)
    surgery: bool = setting(
        False,
        "The task's gradient loses its component along the alignment's where they pull against "
        "each other; a second backward pass.",
    )
    price: PriceSection = PriceSection()


@dataclass(frozen=True)
class InLoopSection(Section):
    """Evaluation while a run trains, on rows of config.data.evaluation."""

    every: int = setting(
        0, "Steps between evaluations in the loop of training; 0: none.", at_least=0
    )
    loop_rows: int = setting(64, "Held-out rows of each of them.", more_than=0)
    loop_samples: int = setting(
        0,
        "Held-out prompts that the policy answers in each, for the share that the conscience "
        "flags; 0: none.",
        at_least=0,
    )
    best: Literal["", "margin", "accuracy", "task_loss", "kl", "flag_rate"] = setting(
        "",
        'The figure by which the best checkpoint is kept, beside the latest; "": the training '
        "loss.",
    )
    patience: int = setting(
        0,
        "Evaluations in a row without a better figure (best) after which the run ends; 0: it goes "
        "on.",
        at_least=0,
    )
    displacement: float = setting(
        0.1,
        "An alarm where chosen answers of given pairs lose this share of their log-prob "
        "(docs/finetuning.md); 0: none.",
        at_least=0,
    )

    def check(self) -> None:
        """What finds the best needs what it is found by."""
        if self.best and not self.every:
            raise UserError("config.evaluation.best: nothing is evaluated; set evaluation.every")
        if self.patience and not self.best:
            raise UserError(
                "config.evaluation.patience: no figure says what is better; set evaluation.best"
            )
        if self.best == "flag_rate" and not self.loop_samples:
            raise UserError(
                "config.evaluation.best: without answers there is no flag_rate; set "
                "evaluation.loop_samples"
            )


@dataclass(frozen=True)
class RunConfig(Section):
    """What every run reads."""

    application: str = setting("finetuning", "What `train` trains.")
    seed: int = setting(0, "Everything random is a function of it.", at_least=0)
    require_platform: Literal["", "cpu", "gpu", "tpu"] = setting(
        "", 'What a run must find: where a driver fails, JAX takes the CPU instead; "": anything.'
    )
    model: ModelSection = ModelSection()
    mesh: MeshSection = MeshSection()
    lora: LoraConfig = LoraConfig()
    data: DataSection = DataSection()
    conscience: ConscienceSection = ConscienceSection()
    endpoint: EndpointSection = EndpointSection()
    sampling: SamplingSection = SamplingSection()
    loss: LossSection = LossSection()
    steering: SteeringSection = SteeringSection()
    optimizer: OptimizerSection = OptimizerSection()
    training: TrainingSection = TrainingSection()
    calibration: CalibrationSection = CalibrationSection()
    evaluation: InLoopSection = InLoopSection()

    def check(self) -> None:
        """Pairs that outlive their step, and what a price or a reference stands on."""
        conscience, steps = self.conscience, self.training.steps
        self._check_pairs()
        if self.sampling.engine == "endpoint" and conscience.enabled:
            self._check_engine()
        if self.loss.kl_on == "pool" and (conscience.enabled or not self.loss.kl_weight):
            raise UserError(
                "config.loss.kl_on: pool is plain training with a KL beside it; set "
                "config.conscience.enabled=False and a loss.kl_weight"
            )
        if self.steering.coefficient and (conscience.enabled or self.loss.kl_weight):
            raise UserError(
                "config.steering is for plain training, since what a policy writes, or a KL holds "
                "it to, is without the shift; set conscience.enabled=False and loss.kl_weight=0, "
                "or steering.coefficient=0"
            )
        if not conscience.enabled:
            if self.loss.alignment_weight == AUTO:
                raise UserError(f"config.loss.alignment_weight: {_NO_SCORE}")
            return
        if conscience.ahead and self.application == "pretraining":
            raise UserError(
                "config.conscience.ahead: raw text is read as it is trained on, and nobody knows "
                "what later steps continue; set False"
            )
        if max(conscience.replay, conscience.every) > steps:
            raise UserError(
                f"config.conscience.replay: pairs of {conscience.every} steps a round that are "
                f"used in {conscience.replay or conscience.every} outlive the run of {steps} "
                "(config.training.steps)"
            )
        if self.loss.alignment_weight == AUTO and (
            conscience.verdicts in ("chance", "none") or conscience.candidate == "target"
        ):
            raise UserError(f"config.loss.alignment_weight: {_NO_SCORE}")
        if self.loss.reference == "policy" and conscience.candidate != "policy":
            raise UserError(
                "config.loss.reference: of targets no policy knows how likely it was to write "
                "them; set frozen, or config.conscience.candidate=policy"
            )
        own = set(conscience.chain) <= set(POLICY_LINKS)
        frozen = self.loss.reference == "frozen" or (self.loss.reference == AUTO and not own)
        if conscience.cuts == "turn" and frozen:
            raise UserError(
                "config.conscience.cuts: pairs of phrases at a turn are compared with the policy "
                "that wrote them; set config.loss.reference=policy"
            )

    def _check_engine(self) -> None:
        """What a server can sample, and what it must be told."""
        section, conscience = "config.sampling.endpoint", self.conscience
        for name in ("base_url", "weights"):
            if not getattr(self.sampling.endpoint, name):
                what = {"base_url": "the server's address, as http://127.0.0.1:8000/v1",
                        "weights": "a folder that the server can read, too"}[name]  # fmt: skip
                raise UserError(f"{section}.{name}: sampling.engine=endpoint needs {what}")
        if self.application != "finetuning":
            raise UserError(
                f"config.sampling.engine: endpoint is for fine-tuning, not for {self.application}; "
                "set own"
            )
        if conscience.candidate == "target":
            raise UserError(
                "config.sampling.engine: endpoint samples the policy, and candidate=target reviews "
                "what the data says; set own"
            )
        if forks := sorted(set(FORK_LINKS) & set(conscience.chain)):
            raise UserError(
                f"config.conscience.chain: {' and '.join(forks)} go on within an answer, which "
                "sampling.engine=endpoint does not; set best, self, fresh or rewrite, or engine=own"
            )
        if not self.lora.rank and self.sampling.endpoint.load == "vllm":
            raise UserError(
                f"{section}.load: vllm is told of adapters alone; set a lora.rank, or load=sglang"
            )

    def _check_pairs(self) -> None:
        """What given pairs go together with."""
        data, conscience = self.data, self.conscience
        if not data.preferences:
            return
        if self.application != "finetuning":
            raise UserError(
                f"config.data.preferences: {self.application} trains on no given pairs; set "
                'config.application="finetuning"'
            )
        if self.loss.kl_on == "pool":
            raise UserError(
                "config.loss.kl_on: rows of a pool and given pairs (config.data.preferences) do "
                "not go together; set kl_on=task"
            )
        if conscience.enabled and conscience.candidate != "policy":
            raise UserError(
                "config.conscience.candidate: beside given pairs (config.data.preferences) the "
                "conscience listens to the policy; set candidate=policy"
            )
        if data.train:
            return
        if conscience.enabled and conscience.prompts in ("task", "both"):
            raise UserError(
                f"config.conscience.prompts: {conscience.prompts} listens to the task's prompts, "
                "and data.train names none; set prompts=pool, or name a task"
            )
        if self.steering.coefficient or data.interleave:
            raise UserError(
                "config.data.train: steering and interleave go with a task's rows; name them, or "
                "set steering.coefficient=0 and data.interleave=0"
            )


C = TypeVar("C", bound=RunConfig)  # a run's config, with whatever a feature has added
_NO_SCORE = (
    "auto holds the policy's mean score at the frozen copy's, and there is none; set a number, or "
    "let the frozen copy review what the policy writes (config.conscience: enabled=True, "
    "candidate=policy or both, verdicts=own)"
)


# What a config may leave to the run, and the values that do so.
UNDECIDED = {
    "conscience.chain": (AUTO,),
    "conscience.prompts": AUTO,
    "conscience.pool_rows": 0,
    "loss.reference": AUTO,
}


def as_begun(config: C, begun: RunConfig) -> C:
    """The config with what it leaves to the run as a run that has `begun` has it."""
    undecided = [name for name, value in UNDECIDED.items() if value_of(config, name) == value]
    return changed(config, {name: value_of(begun, name) for name in undecided})


def decided(config: C, *, listens_to: str = "task") -> C:
    """The config of a run with what it leaves to the run decided: the chain; the reference;
    how much of a pool is heard; and whether it is heard in place of the task's prompts, where the
    application `listens_to` one."""
    chain = links_of(config.conscience, in_training=True)
    own = set(chain) <= set(POLICY_LINKS)
    values: dict[str, Any] = {"conscience.chain": chain}
    values["conscience.pool_rows"] = config.conscience.pool_rows or config.training.batch_size
    if config.conscience.prompts == AUTO:
        values["conscience.prompts"] = listens_to if own else "task"
    if config.loss.reference == AUTO:
        values["loss.reference"] = "policy" if own else "frozen"
    return changed(config, values)


def has_price(config: RunConfig) -> bool:
    """Whether λ is moved from round to round (price.py)."""
    return config.conscience.enabled and config.loss.alignment_weight == AUTO


def has_own_level(config: RunConfig) -> bool:
    """Whether the threshold is the level of the frozen copy's own answers (yardstick.py); where
    chance flags, nothing has a level."""
    conscience = config.conscience
    judged = conscience.verdicts not in ("chance", "none")
    return conscience.enabled and judged and conscience.gate == "own"
