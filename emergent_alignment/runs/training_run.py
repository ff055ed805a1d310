"""A training run of any application: own the work directory, restore, feed the loop, close.

An application reads and checks its data, and says what it feeds a step. All else is here.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emergent_alignment import __version__
from emergent_alignment.conscience.diagnosis import diagnosed
from emergent_alignment.conscience.journal import Journal, check_journal, read_journal
from emergent_alignment.conscience.pairs import ConscienceSettings
from emergent_alignment.errors import UserError
from emergent_alignment.models.lora import LoraConfig
from emergent_alignment.own_functions import named_function
from emergent_alignment.parallel.hosts import check_same, is_first, together
from emergent_alignment.parallel.mesh import in_force
from emergent_alignment.progress import progress
from emergent_alignment.runs.config import AUTO, C, LossSection, RunConfig, has_price
from emergent_alignment.runs.from_config import (
    Setup,
    conscience_settings,
    lora_config,
    starting_params,
)
from emergent_alignment.runs.rollouts import Rollouts, uses_server
from emergent_alignment.runs.workdir import claim, work_alone
from emergent_alignment.settings import values_of
from emergent_alignment.storage.cache import cached_beside
from emergent_alignment.storage.json_values import plain
from emergent_alignment.training.checkpoints import Checkpoints, RunIdentity
from emergent_alignment.training.clock import Clock
from emergent_alignment.training.heads import Head, grower
from emergent_alignment.training.hooks import Hook, Hooks
from emergent_alignment.training.loggers import ShownRun, makers_of
from emergent_alignment.training.loop import MakeInput, Recording, run
from emergent_alignment.training.metrics import (
    MetricsWriter,
    NoMetrics,
    check_metrics,
    metrics_by_step,
)
from emergent_alignment.training.objective import Objective, Term
from emergent_alignment.training.optimizer import make_optimizer
from emergent_alignment.training.profiling import Profiler
from emergent_alignment.training.state import (
    TrainState,
    committed,
    fingerprint,
    initial_state,
    steered,
)
from emergent_alignment.training.step import compiled_step, step_shardings
from emergent_alignment.training.step_settings import StepSettings
from emergent_alignment.training.terms import (
    ChosenNLLTerm,
    KLTerm,
    LoadBalanceTerm,
    PreferenceTerm,
    TaskTerm,
)
from emergent_alignment.training.throughput import Throughput


@dataclass(frozen=True)
class Run(Generic[C]):
    """What an application may use to make a step's input.

    config, setup    the settings, and the frozen model with its chat
    conscience       None where config.conscience.enabled is False
    lora             None where all parameters are trained
    journal, clock   where reviews are written, and what measures the parts of a step
    first_step       0, or how many steps the restored checkpoint has behind it
    workdir          the run's folder
    rollouts         where a server of the user's samples for the policy (sampling.engine)
    """

    config: C
    setup: Setup
    conscience: ConscienceSettings | None
    lora: LoraConfig | None
    journal: Journal
    clock: Clock
    first_step: int
    workdir: Path
    rollouts: Rollouts | None = None


@dataclass(frozen=True)
class Training:
    """What a run trains on, and towards what.

    data        digits that say which rows are trained on
    inputs      gives the function that feeds a step
    objective   what a step minimises; None: the hybrid loss of prompts with their branches
    head        perhaps one that is trained, too (training/heads.py)
    base_run    the run whose trained model is the frozen one here, where it is not the config's
    steering    what is added to the policy's residual stream in training alone (runs/steering.py)
    hooks       gives what is told how the run goes, in-loop evaluation among it
    notes       said on stderr by the first host once the folder is this run's
    """

    data: str
    inputs: Callable[[Run], MakeInput]
    objective: Objective | None = None
    head: Head = ""
    base_run: Path | None = None
    steering: Float[Array, "layers width"] | None = None
    hooks: Callable[[Run], list[Hook]] | None = None
    notes: tuple[str, ...] = ()


def train(
    config: RunConfig,
    workdir: Path,
    setup: Setup,
    training: Training,
    *,
    name: str = "training",
    profiled: range = range(0),
) -> TrainState:
    """Train from the newest checkpoint in `workdir`, if there is one, to the last step.

    Several hosts (parallel/hosts.py) call it with the same config and a `workdir` that all can
    reach. `name` is what progress is shown under; a profile of the steps `profiled` goes to
    workdir/profile.

    Returns the last state. Raises UserError where `workdir` is another run's or hosts differ, or
    config.steering is set and the application steers nothing, and Stopped where a process was
    asked to stop (the state is saved).
    """
    if config.steering.coefficient and training.steering is None:
        raise UserError(
            "config.steering.coefficient: only fine-tuning on rows is steered; set it to 0"
        )
    own_hooks(config)
    makers_of(config.training.loggers)
    if config.evaluation.every and training.hooks is None:
        raise UserError(
            "config.evaluation.every: this run has no evaluation in its loop (fine-tuning and "
            "adversarial training have); set it to 0"
        )
    code = {"version": __version__, "code": code_digest(), "jax": jax.__version__}
    settings = {f"config.{name}": value for name, value in values_of(config).items()}
    check_same(code | {"data": training.data} | settings)
    with Clock() as clock, in_force(setup.mesh), work_alone(workdir), cached_beside(workdir):
        identity = RunIdentity(fingerprint(setup.model.params), training.data)
        with together():
            if is_first():
                claim(workdir, config, identity, training.head, training.base_run)
                check_journal(workdir / "journal")
                check_metrics(workdir)
                for note in training.notes:
                    print(note, file=sys.stderr)
        profiler = Profiler(profiled, workdir / "profile")
        return _train(config, workdir, setup, identity, training, name, clock, profiler)


def code_digest(package: Path = Path(__file__).parents[1]) -> str:
    """16 hex digits that say which code this is: two checkouts may have one version. A wheel's
    configs and scripts, which stand beside the package in a checkout, are left out."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] in ("configs", "launch"):
            continue
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _train(config, workdir, setup, identity, training, name, clock, profiler) -> TrainState:
    """The run itself, with everything it needs checked and loaded."""
    grow = grower(training.head, setup.model.config.hidden_size)
    lora, settings = lora_config(config), step_settings(config, setup)
    optimizer = make_optimizer(config.optimizer, config.training.steps)
    frozen = steered(setup.model.params, training.steering)
    start = starting_params(config, setup)
    state = committed(initial_state(start, lora, optimizer, config.seed, setup.mesh, grow))
    checkpoints = Checkpoints(
        workdir / "checkpoints",
        identity,
        keep=config.training.keep_checkpoints,
        by_figure=bool(config.evaluation.best),
    )
    first_step = checkpoints.latest() or 0
    if first_step:
        state = checkpoints.restore(state)
    journal = Journal(workdir / "journal", first_step=first_step, host=jax.process_index())
    metrics = _metrics(config, workdir, first_step) if is_first() else NoMetrics()
    conscience = conscience_settings(config) if config.conscience.enabled else None
    rollouts = Rollouts(config, setup) if uses_server(config) else None
    run_of = Run(config, setup, conscience, lora, journal, clock, first_step, workdir, rollouts)
    make_input = training.inputs(run_of)
    makers = own_hooks(config)
    hooks = Hooks(
        [make(run_of) for make in makers] + (training.hooks(run_of) if training.hooks else [])
    )
    placed = step_shardings(setup.mesh, state, frozen)
    objective = training.objective or Objective(hybrid_terms(config.loss))
    weighted = has_price(config)
    step = compiled_step(settings, optimizer, placed, objective, weighted=weighted)
    throughput = Throughput(settings, jax.devices())
    with progress(name, shown=is_first()) as meter, _saves_settled(checkpoints):
        recording = Recording(
            checkpoints, metrics, journal, clock, profiler, throughput, meter, hooks
        )
        state = run(
            config.training,
            recording,
            make_input,
            step,
            state,
            frozen,
            first_step=first_step,
        )
    recording.close()
    if conscience is not None and is_first():
        _say(workdir, config)
    return state


def _metrics(config: RunConfig, workdir: Path, first_step: int) -> MetricsWriter:
    settings = {name: plain(value) for name, value in values_of(config).items()}
    shown = ShownRun(workdir, first_step, settings, config.training.project)
    return MetricsWriter(shown, config.training.loggers)


def own_hooks(config: RunConfig) -> list[Callable[[Run], Hook]]:
    """What makes those that config.training.hooks names. Raises UserError for a name that is
    none."""
    return [
        named_function(name, "config.training.hooks", "(run)") for name in config.training.hooks
    ]


def _say(workdir: Path, config: RunConfig) -> None:
    """What the run's log says of its conscience, on stderr."""
    weight = config.loss.alignment_weight
    journal = read_journal(workdir / "journal")
    given = metrics_by_step(workdir), journal, weight if weight != AUTO else 1.0
    for sentence in diagnosed(*given):
        print(sentence, file=sys.stderr, flush=True)


@contextmanager
def _saves_settled(checkpoints: Checkpoints) -> Iterator[None]:
    """Before an error goes on, a save that is under way ends: a notebook may start the run again at
    once. Several hosts do not wait for it, since one of them may be gone."""
    try:
        yield
    except BaseException:
        if jax.process_count() == 1:
            with suppress(Exception):  # the error that came first is the one to tell
                checkpoints.close()
        raise


def step_settings(config: RunConfig, setup: Setup) -> StepSettings:
    """The static part of the training step. Raises UserError for a load balance of experts that the
    model does not have."""
    if config.loss.load_balance_weight and not setup.model.config.num_experts:
        raise UserError(
            f"config.loss.load_balance_weight: {setup.model.source} has no experts to balance; "
            "set 0"
        )
    return StepSettings(
        setup.model.config,
        lora_config(config),
        jnp.dtype(config.model.dtype),
        remat=config.training.remat,
        chunk_size=config.loss.chunk_size,
        accumulation=config.training.accumulation,
        surgery=config.loss.surgery,
        own_moments=config.optimizer.moments == "own",
    )


def pair_terms(loss: LossSection) -> tuple[Term, ...]:
    """`hybrid_terms` without a task's."""
    return tuple(term for term in hybrid_terms(loss) if not isinstance(term, TaskTerm))


def hybrid_terms(loss: LossSection) -> tuple[Term, ...]:
    """task + λ · alignment + α · NLL(chosen) + load balance + KL, as config.loss says."""
    weight = loss.price.start if loss.alignment_weight == AUTO else loss.alignment_weight
    preference = PreferenceTerm(weight, loss.kind, loss.beta, loss.label_smoothing, loss.normalize)
    chosen = ChosenNLLTerm(loss.chosen_nll_weight)
    balance = LoadBalanceTerm(loss.load_balance_weight)
    return TaskTerm(), preference, chosen, balance, KLTerm(loss.kl_weight)
