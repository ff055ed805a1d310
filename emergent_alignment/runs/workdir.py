"""Work directories: who owns one, what is in it, and the model that a run has trained."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import jax

from emergent_alignment import __version__
from emergent_alignment.errors import UserError
from emergent_alignment.parallel.hosts import is_first, together
from emergent_alignment.parallel.mesh import MeshSection, fitting_sizes
from emergent_alignment.runs.config import C, RunConfig, as_begun, decided
from emergent_alignment.runs.from_config import (
    Setup,
    calibration_digits,
    data_digits,
    given_pairs,
    load_model,
    lora_config,
    starting_params,
    training_examples,
    with_adapters,
)
from emergent_alignment.runs.relative_paths import located, same_place
from emergent_alignment.settings import as_dict, changed, check_settings, from_dict
from emergent_alignment.storage.files import is_empty, is_whole_folder, write_json
from emergent_alignment.storage.json_files import read_json_file
from emergent_alignment.storage.json_values import plain
from emergent_alignment.storage.locks import locked
from emergent_alignment.storage.shapes import Optional, Text
from emergent_alignment.training.checkpoints import Checkpoints, RunIdentity
from emergent_alignment.training.heads import Head, grower
from emergent_alignment.training.optimizer import make_optimizer
from emergent_alignment.training.state import fingerprint, initial_state

RUN_FILE = "run.json"
_RECORD = {
    "version": Optional(Text()),
    "frozen": Text(),
    "data": Text(),
    "head": Optional(Text(get_args(Head))),
    "config": dict,
    "base_run": Optional(Text()),
    "calibration": Optional(Text()),
    "started_in": Optional(Text()),
}
# The folder with the model that a run from random weights has started from.
START = "start"
# A run may go on with others of these: where it computes and samples, and where it is shown.
_MAY_CHANGE = ("mesh.", "sampling.endpoint.", "training.loggers", "training.project")


@dataclass(frozen=True)
class TrainedRun:
    """A run read back: its base model, the trained model, and the steps it has done."""

    base: Setup
    trained: Setup
    steps: int


@contextmanager
def work_alone(workdir: Path) -> Iterator[None]:
    """Within it no other run may work in `workdir`: the first host locks it for all of a run's.
    Raises UserError on every host where another run does."""
    with ExitStack() as held:
        with together():
            if is_first():
                remedy = "wait for it or stop it, or choose another --workdir"
                held.enter_context(locked(workdir, remedy))
        yield


def claim(
    workdir: Path,
    config: RunConfig,
    identity: RunIdentity,
    head: Head = "",
    base_run: Path | None = None,
) -> None:
    """Make `workdir` this run's, or find that it already is. Raises UserError where it is
    another run's (the fields that differ are named) or holds something else. A run may go on
    on another mesh, and be shown elsewhere."""
    path = workdir / RUN_FILE
    check_same_run(workdir, config)
    if path.exists():
        _check_identity(workdir, identity, config)
        return
    if workdir.exists() and not is_empty(workdir):
        raise UserError(f"{workdir}: not empty, and not a run of ours; choose another --workdir")
    record = {"version": __version__, **vars(identity), "head": head, "config": as_dict(config)}
    record["started_in"] = str(Path.cwd())
    if base_run is not None:
        record["base_run"] = os.path.relpath(base_run, workdir)
    if config.conscience.calibration:
        record["calibration"] = calibration_digits(config)
    write_json(path, record)


def decided_in(workdir: Path, config: C, *, listens_to: str = "task") -> C:
    """The config with what it leaves to the run decided (config.decided), as it was when the run in
    `workdir` began. Raises UserError where that one's settings cannot be read."""
    if (workdir / RUN_FILE).exists():
        begun = decided(_config_of(workdir, read_run_file(workdir), type(config)))
        config = as_begun(config, begun)
    return decided(config, listens_to=listens_to)


def check_same_run(workdir: Path, config: RunConfig) -> None:
    """Raise UserError where `workdir` is the work directory of a run of another config (the
    fields that differ are named), but for the mesh, the loggers, and what this one leaves to the
    run. A field that an older version had not is taken at its default, and a path is the same
    however it is written."""
    if not (workdir / RUN_FILE).exists():
        return
    record = read_run_file(workdir)
    theirs = decided(_config_of(workdir, record, type(config)))
    config = as_begun(config, theirs)
    differing = [
        f"{name} ({old!r}, now {new!r})"
        for name, old, new in differences(plain(as_dict(theirs)), plain(as_dict(config)))
        if not name.startswith(_MAY_CHANGE)
        and not same_place(name, config, theirs, record.get("started_in"))
    ]
    if differing:
        raise UserError(
            f"{workdir}: another run's work directory; it differs in "
            f"{', '.join(differing[:5])}. Use its settings to go on with it, or another "
            "--workdir"
        )


def read_run_file(workdir: Path) -> dict:
    """run.json of a work directory. Raises UserError where there is none or it is broken."""
    try:
        return read_json_file(
            workdir / RUN_FILE, _RECORD, "put it back as it was, or choose another work directory"
        )
    except FileNotFoundError:
        raise UserError(f"{workdir}: not a run's work directory ({RUN_FILE} is missing)") from None


def _check_identity(workdir: Path, identity: RunIdentity, config: RunConfig) -> None:
    """Raise UserError where a run has begun with another model, other data, or a calibration that
    says other things."""
    begun, now = read_run_file(workdir), vars(identity)
    if begun.get("calibration"):
        now = now | {"calibration": calibration_digits(config)}
    meanings = {"frozen": "frozen model", "data": "data set", "calibration": "calibration"}
    for name, digits in now.items():
        if begun[name] != digits:
            raise UserError(
                f"{workdir}: this run was begun with another {meanings[name]} ({begun[name]}, now "
                f"{digits}); use the former one, or another --workdir"
            )


def read_run(
    workdir: Path,
    kind: type[RunConfig],
    *,
    base: Setup | None = None,
    above: tuple[Path, ...] = (),
    step: int | None = None,
) -> TrainedRun:
    """The model that a run has trained, from its newest checkpoint or the one after `step` steps,
    with its settings as a `kind` (config.Config has all sections). `base` saves reading the base
    model again; the runs `above` have started from this one. Raises UserError where there is no
    checkpoint, or it is another model's, or the run has trained a head alone."""
    record = read_run_file(workdir)
    config = run_config(workdir, kind)
    if is_whole_folder(workdir / START):
        config = changed(config, {"model.path": str(workdir / START)})
    sizes = fitting_sizes(config.mesh.sizes(), jax.device_count())
    config = changed(config, {"mesh": MeshSection(**sizes)})
    base = base or _base_of(workdir, record, config, (*above, workdir.resolve()))
    identity = RunIdentity(fingerprint(base.model.params), record["data"])
    if identity.frozen != record["frozen"]:
        raise UserError(
            f"{workdir}: trained from another frozen model ({record['frozen']}, now "
            f"{identity.frozen}); is config.model.path still the same?"
        )
    checkpoints = Checkpoints(workdir / "checkpoints", identity)
    steps = checkpoints.latest() if step is None else step
    if steps is None:
        raise UserError(f"{workdir}: there is no checkpoint yet; run `emergent-alignment train`")
    head = record.get("head", "")
    if head == "alone":
        raise UserError(f"{workdir}: a run that trained a head alone, and no model")
    lora = lora_config(config)
    optimizer = make_optimizer(config.optimizer, config.training.steps)
    start = starting_params(config, base)
    state = initial_state(
        start, lora, optimizer, config.seed, base.mesh, grower(head, base.model.config.hidden_size)
    )
    state = checkpoints.restore(state, steps)
    checkpoints.close()
    model = with_adapters(base.model, lora, state.trainable.body if head else state.trainable)
    return TrainedRun(base, Setup(config, model, base.chat, base.mesh), steps)


def run_config(workdir: Path, kind: type[C]) -> C:
    """The settings of a run, as a `kind`, with its relative paths as they are from here. Raises
    UserError where they cannot be read or meant."""
    record = read_run_file(workdir)
    config = _config_of(workdir, record, kind)
    check_settings(config, f"{workdir / RUN_FILE}: config")
    if record.get("started_in", os.getcwd()) != os.getcwd():
        config = located(config, record["started_in"])
    return config


def _base_of(workdir: Path, record: dict, config: RunConfig, above: tuple[Path, ...]) -> Setup:
    """The model that a run has started from: the config's, or what another run has trained, with
    its adapters merged into the weights; of runs that started from it, those `above` are known."""
    if record.get("base_run") is None:
        return load_model(config)
    folder = (workdir / record["base_run"]).resolve()
    if folder in above:
        raise UserError(
            f"{workdir / RUN_FILE}: base_run {record['base_run']!r} leads back to this run, and "
            "none starts from itself; put the file back as it was"
        )
    earlier = read_run(folder, type(config), above=above)
    return replace(earlier.base, config=config, model=earlier.trained.model.merged())


def identity_of(setup: Setup) -> RunIdentity:
    """Who the frozen parameters and the training data of a config are."""
    data = data_digits(training_examples(setup.config), given_pairs(setup.config).examples)
    return RunIdentity(fingerprint(setup.model.params), data)


def _config_of(workdir: Path, record: dict, kind: type[C]) -> C:
    """The settings that a run was begun with; what an older version had not is at its default."""
    remedy = (
        f"The run is of version {record.get('version', 'unknown')}, and this is {__version__}: go "
        "on with the version that began it"
    )
    return from_dict(kind, record["config"], str(workdir / RUN_FILE), remedy)


def differences(old: dict, new: dict, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """("section.field", what it was, what it is) of every field in which two nested dicts differ;
    None where one lacks it."""
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from differences(before, after, f"{prefix}{name}.")
        elif before != after:
            yield prefix + name, before, after
