"""From a config to what a run works with: model, chat, examples, conscience. What cannot be read
is said here, before anything is trained or written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from emergent_alignment.conscience.calibration import read_calibration
from emergent_alignment.conscience.form import KeptForm
from emergent_alignment.conscience.principles import read_constitution
from emergent_alignment.conscience.question import named_question, told_before
from emergent_alignment.conscience.review import ReviewSettings
from emergent_alignment.conscience.revise import FORK_LINKS
from emergent_alignment.conscience.settings import (
    NAMED_VERDICTS,
    Chance,
    ConscienceSection,
    ConscienceSettings,
    links_of,
)
from emergent_alignment.data.chat import Chat, read_chat
from emergent_alignment.data.examples import Example
from emergent_alignment.data.messages import CONTENT_PARTS, Message
from emergent_alignment.data.mixtures import WeightedSource, mixed_places, parts_of
from emergent_alignment.data.scenarios import SCENARIOS
from emergent_alignment.data.settings import DataSection
from emergent_alignment.data.sources import LoadedPairs, Stream, load_examples, load_pairs
from emergent_alignment.data.tokenized import Tokenized
from emergent_alignment.data.tools import CALLS
from emergent_alignment.errors import UserError
from emergent_alignment.generation.sampler import SamplerSettings, sampler_settings
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.loading import read_model_config
from emergent_alignment.models.lora import LoraConfig
from emergent_alignment.models.model import Model, load
from emergent_alignment.models.placement import decode_mesh
from emergent_alignment.parallel.chips import check_platform, memory_bytes
from emergent_alignment.parallel.mesh import make_mesh, row_axes, sizes_of
from emergent_alignment.parallel.sharding import num_shards
from emergent_alignment.runs.config import RunConfig
from emergent_alignment.storage.files import is_file
from emergent_alignment.storage.json_values import digest


@dataclass(frozen=True)
class Setup:
    """A loaded model with its chat, the run's settings, and the mesh that its parameters lie on
    (None: one device), which must be in force where it computes."""

    config: RunConfig
    model: Model
    chat: Chat
    mesh: Mesh | None = None


def load_model(config: RunConfig) -> Setup:
    """The model of a config, with its parameters held as the frozen copy's, cut over the
    config's mesh. Raises UserError with one line where it cannot be read, or the mesh does not
    fit the model or the devices."""
    check_platform(config.require_platform)
    model_config = read_model_config(config.model.path) if jax.device_count() > 1 else None
    mesh = mesh_of(config, model_config)
    model = _read_model(config, mesh, config.model.frozen_dtype)
    return Setup(config, model, read_chat(model.tokenizer, config.model.path), mesh)


def mesh_of(
    config: RunConfig,
    model: ModelConfig | None,
    devices: Sequence[jax.Device] | None = None,
    memory: float | None = None,
) -> Mesh | None:
    """The mesh of a run of this model over all devices (or those given, of so many bytes of
    memory). Raises UserError as make_mesh, and where it cuts experts that the model has not."""
    devices = jax.devices() if devices is None else devices
    decode = config.mesh.decode
    if len(devices) > 1:
        memory = memory_bytes(devices[0]) if memory is None else memory
        dtype = jnp.dtype(config.model.dtype)
        decode = decode_mesh(config.mesh, model, dtype, len(devices), memory)
    mesh = make_mesh(config.mesh.sizes(), devices, decode)
    parts = sizes_of(mesh)["expert"]
    if parts > 1 and not model.num_experts:
        raise UserError(
            f"config.mesh asks for expert={parts}, but {config.model.path} ({model.family}) has no "
            "experts; leave it at 1 and give these devices to fsdp"
        )
    return mesh


def check_rows(config: RunConfig, mesh: Mesh | None) -> None:
    """Raise UserError where the mesh does not cut a batch's rows evenly, microbatch by
    microbatch."""
    if mesh is None:
        return
    unit = num_shards(mesh, "batch") * config.training.accumulation
    rows = config.training.batch_size
    if rows % unit:
        raise UserError(
            f"config.training.batch_size: {rows} prompts cannot be cut into "
            f"{num_shards(mesh, 'batch')} shards ({row_axes(mesh)} of config.mesh) × "
            f"{config.training.accumulation} microbatches; {max(round(rows / unit), 1) * unit} can"
        )


def check_positions(config: RunConfig, model: Model, rows: list[Tokenized] = ()) -> None:
    """Raise UserError where a row of the data, with its target or with what is sampled in its
    place, or the longest review that the settings allow, is more than the model can read."""
    written = config.sampling.max_new_tokens if config.conscience.enabled else 0
    if set(FORK_LINKS) & set(config.conscience.chain):
        written *= 2  # they may go on behind a whole answer
    longest = max((len(row.prompt) + max(len(row.target), written) for row in rows), default=0)
    model.config.check_row(
        longest,
        f"{config.data.train}: the longest prompt with its answer",
        "lower config.data.max_prompt_tokens or max_response_tokens",
    )
    if config.conscience.enabled and config.conscience.verdicts == "own":
        model.config.check_row(
            config.conscience.max_review_tokens,
            "config.conscience.max_review_tokens: a review of that length",
            f"set at most {model.config.longest_row}",
        )


def starting_params(config: RunConfig, setup: Setup) -> dict:
    """What training starts from: the frozen copy itself, or, for full fine-tuning beside a
    smaller frozen copy, the model as it was, which is read again and not kept."""
    if config.lora.rank or not config.model.frozen_dtype:
        return setup.model.params
    return _read_model(config, setup.mesh).params


def _read_model(config: RunConfig, mesh: Mesh | None, frozen_dtype: str = "") -> Model:
    return load(
        config.model.path,
        dtype=jnp.dtype(config.model.dtype),
        param_dtype=jnp.dtype(config.model.param_dtype),
        chat_template=config.model.chat_template or None,
        mesh=mesh,
        frozen_dtype=frozen_dtype,
    )


def lora_config(config: RunConfig) -> LoraConfig | None:
    """The adapters' settings, None where all parameters are trained."""
    return config.lora if config.lora.rank else None


def conscience_settings(config: RunConfig, calibration: dict | None = None) -> ConscienceSettings:
    """The conscience of a config; a `calibration`, or the file of one where the config names it,
    decides wording, layout, polarity and threshold. A chain that is not decided (config.decided)
    is that of answers which no policy in training wrote. Raises UserError where that file cannot
    be read."""
    conscience, sampling = config.conscience, config.sampling
    names = ("question", "layout", "polarity", "evidence", "threshold")
    asked = {name: getattr(conscience, name) for name in names}
    if conscience.calibration:
        asked = _calibrated(Path(conscience.calibration), asked)
    if calibration is not None:
        asked = {name: calibration["chosen"][name] for name in asked}
    review = ReviewSettings(
        named_question(asked["question"]),
        asked["layout"],
        asked["polarity"],
        conscience.batch_size,
        conscience.max_review_tokens,
        asked["evidence"],
    )
    return ConscienceSettings(
        review,
        gate=conscience.gate,
        threshold=asked["threshold"],
        margin=conscience.margin,
        chain=links_of(conscience, in_training=False),
        one_batch=conscience.one_batch,
        critique=conscience.critique,
        principles=read_constitution(conscience.principles),
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.revision_temperature,
        top_p=sampling.revision_top_p,
        keep_truncated=conscience.keep_truncated,
        max_prompt=config.data.max_prompt_tokens,
        max_response=config.data.max_response_tokens,
        similarity=conscience.similarity,
        form=KeptForm(conscience.length_ratio, conscience.likeness, conscience.keeps),
        samples=conscience.samples,
        cuts=conscience.cuts,
        verdict="" if conscience.verdicts in NAMED_VERDICTS else conscience.verdicts,
        chance=_chance(conscience),
    )


def check_gate(config: RunConfig) -> None:
    """Raise UserError where the conscience of a config has what only a run that trains gives."""
    forks = set(FORK_LINKS) & set(config.conscience.chain)
    if forks:
        raise UserError(
            f"config.conscience.chain: {' and '.join(sorted(forks))} fork what a policy in "
            "training wrote, and here is none; choose among rewrite, fresh, self and best"
        )
    if config.conscience.gate == "own":
        raise UserError(
            "config.conscience.gate: own is a level that rounds of training set, and here are "
            "none; set score or relative"
        )


def calibration_digits(config: RunConfig) -> str:
    """16 hex digits of what the calibration that a config names makes of it."""
    conscience = conscience_settings(config)
    review = conscience.review
    return digest(
        [
            review.question.name,
            review.layout,
            review.polarity,
            review.evidence,
            conscience.threshold,
        ]
    )


def _chance(conscience: ConscienceSection) -> Chance | None:
    drawn = Chance(conscience.chance_flag_rate, conscience.chance_pass_rate)
    return {"chance": drawn, "none": Chance(1.0, 1.0)}.get(conscience.verdicts)


def _calibrated(path: Path, asked: dict) -> dict:
    try:
        chosen = read_calibration(path)["chosen"]
    except UserError as error:
        raise UserError(f"config.conscience.calibration: {error}") from None
    return {name: chosen.get(name) or "" if name == "evidence" else chosen[name] for name in asked}


def candidate_sampler(config: RunConfig, chat: Chat) -> SamplerSettings:
    """How the policy's candidates are drawn."""
    sampling = config.sampling
    return sampler_settings(
        chat.end_tokens,
        sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
    )


def training_examples(config: RunConfig) -> list[Example]:
    """The rows to train on, behind the system text that config.data.system puts before them; none
    where there are pairs alone. They are to be written out (data/written_out.py)."""
    data = config.data
    if data.preferences and not data.train:
        return []
    parts, rows = parts_of(data.train, "config.data.train"), config.training.batch_size
    loaded = [
        load_examples(
            part.source,
            split=data.train_split,
            limit=data.limit,
            columns=data.columns,
            every_turn=data.every_turn,
            ignored=data.ignored,
            whole=True,
            stream=_stream(config, part, rows),
        )
        for part in parts
    ]
    return _told(_mixed(config, parts, loaded, rows), data.system)


def given_pairs(config: RunConfig) -> LoadedPairs:
    """The pairs of config.data.preferences, behind the same text; none where it names no source.
    They are to be written out, as those rows. Raises UserError where it cannot be read."""
    data = config.data
    if not data.preferences:
        return LoadedPairs([], {})
    parts = parts_of(data.preferences, "config.data.preferences")
    rows = data.preference_rows or config.training.batch_size
    loaded = [
        load_pairs(
            part.source,
            split=data.preferences_split,
            limit=data.limit,
            columns=data.preference_columns,
            ignored=data.ignored,
            whole=True,
            stream=_stream(config, part, rows),
        )
        for part in parts
    ]
    examples = _mixed(config, parts, [one.examples for one in loaded], rows)
    left_out = {
        f"{part.source}: rows left out, whose answers {reason}": count
        for part, one in zip(parts, loaded)
        for reason, count in one.left_out.items()
    }
    return LoadedPairs(_told(examples, data.system), left_out)


def _stream(config: RunConfig, part: WeightedSource, rows: int) -> Stream | None:
    """How a source is read of which a run takes its share of so many `rows` a step: whole, or as a
    stream whose every row is seen once at most."""
    if not config.data.stream:
        return None
    wanted = math.ceil(part.share * config.training.steps * rows)
    most = min(wanted, config.data.limit or wanted)
    return Stream(most, config.data.stream_buffer, config.seed)


def _mixed(
    config: RunConfig, parts: list[WeightedSource], loaded: list[list[Example]], rows: int
) -> list[Example]:
    """The rows of a mixture, for a run that takes so many `rows` a step; of one source all."""
    if len(parts) == 1:
        return loaded[0]
    sizes, most = [len(rows) for rows in loaded], config.training.steps * rows
    places = mixed_places(sizes, [part.share for part in parts], most, config.seed)
    return [loaded[source][row] for source, row in places]


def _told(examples: list[Example], system: str) -> list[Example]:
    if not system:
        return examples
    return [
        replace(example, prompt=tuple(told_before(example.messages, system)))
        for example in examples
    ]


def evaluation_examples(data: DataSection, limit: int, *, whole: bool = False) -> list[Example]:
    """Held-out rows, at most `limit` (0: all): of a bundled scenario the kinds that training never
    sees; read `whole`, they are to be written out (data/written_out.py). Raises UserError where
    they would be the training rows themselves."""
    read = ((data.train, data.train_split), (data.preferences, data.preferences_split))
    same = any(
        source == data.evaluation and (split == data.evaluation_split or is_file(source))
        for source, split in read
    )
    if same and data.evaluation not in SCENARIOS:
        raise UserError(
            f"config.data.evaluation: {data.evaluation} is what training reads; name rows that "
            "training does not see"
        )
    return load_examples(
        data.evaluation,
        split=data.evaluation_split,
        limit=limit,
        columns=data.columns,
        ignored=data.ignored,
        whole=whole,
    )


def data_digits(examples: list[Example], pairs: list[Example]) -> str:
    """16 hex digits that say which rows and which given pairs a run trains on."""
    digits = examples_digest(examples)
    return digest([digits, examples_digest(pairs)]) if pairs else digits


def examples_digest(examples: list[Example]) -> str:
    """16 hex digits that say which examples these are, in which order."""
    rows = [dict(vars(example)) for example in examples]
    for row in rows:  # as digests were before there were these fields
        row.pop("where", None)
        if "prompt" in row:
            row["prompt"] = [_without_parts(turn) for turn in row["prompt"]]
        if not any(CALLS in turn for turn in row.get("answer", ())):
            row.pop("answer", None)
        for name, usual in (("ended", True), ("reasoned", False), ("tools", "")):
            if row.get(name) == usual:
                del row[name]
    return digest(rows, ensure_ascii=False)


def _without_parts(message: Message) -> Message:
    return {name: value for name, value in message.items() if name != CONTENT_PARTS}


def with_adapters(model: Model, lora: LoraConfig | None, trainable: dict) -> Model:
    """The model as training left it: the base with adapters, or with new parameters."""
    if lora is None:
        return replace(model, params=trainable)
    return replace(model, lora=lora, adapters=trainable)
