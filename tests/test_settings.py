"""Every field of the config is read by something, and every config file has known fields only."""

import dataclasses
import functools
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint, completion
from harness_tasks import only_our_tasks, write_choice_task
from rollout_engine import engine
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment import settings
from emergent_alignment.cli.config_files import as_config_dict, typed
from emergent_alignment.cli.configuration import read_config
from emergent_alignment.config import Config, default_config
from emergent_alignment.errors import UserError
from emergent_alignment.settings import Section, values_of

ROOT = Path(__file__).parents[1]


def recording(section, read, prefix=""):
    """The section in a class of its own that notes in `read` which fields are read, by their dotted
    names; what is made of it by `changed` notes them, too."""
    values = {
        name: recording(value, read, f"{prefix}{name}.") if isinstance(value, Section) else value
        for name, value in vars(section).items()
    }
    return recording_class(type(section), prefix, read)(**values)


class Read(set):
    """Names that were read; as a key of a cache it is itself."""

    __hash__ = object.__hash__


@functools.cache
def recording_class(kind, prefix, read):
    """A class for each place in the config, so that equal sections are of one class. To compare
    sections, and to use one as a key, is not to read a field."""
    names = {field.name for field in dataclasses.fields(kind)}

    class Recording(kind):
        def __getattribute__(self, name):
            value = super().__getattribute__(name)
            if name in names and not isinstance(value, Section):
                read.add(prefix + name)
            return value

        def __eq__(self, other):
            return type(self) is type(other) and vars(self) == vars(other)

        def __hash__(self):
            return hash(tuple(vars(self).values()))

    return Recording


def raw_text_config(config, folder):
    """The same small sizes for raw text: two steps, whose continuations are reviewed."""
    (folder / "corpus").mkdir()
    (folder / "corpus" / "a.txt").write_text("Boats go out and boats come in. " * 40)
    raw = as_config_dict(config)
    raw.lora.rank = 0
    raw.training.steps = 2
    raw.pretraining.update({"corpus": str(folder / "corpus"), "window_tokens": 16, "auc": 0.0})
    raw.pretraining.review_share = 1.0
    raw.pretraining.random.update({"layers": 1, "width": 16, "inner": 16, "vocabulary": 300})
    raw.calibration.layouts, raw.calibration.polarities = ("quote",), ("positive",)
    return typed(raw)


@pytest.mark.long
def test_every_field_is_read(tmp_path, monkeypatch):
    from emergent_alignment.applications import finetuning
    from emergent_alignment.applications.adversarial import training as adversarial
    from emergent_alignment.applications.by_name import application
    from emergent_alignment.applications.pretraining import training as pretraining
    from emergent_alignment.applications.pretraining.training import pretrain
    from emergent_alignment.applications.zero_shot import answerer as zero_shot
    from emergent_alignment.applications.zero_shot.serving.settings import serve_settings
    from emergent_alignment.evaluation.capability import evaluate_capability, load_harness_tasks
    from emergent_alignment.evaluation.choices.evaluate import evaluate_choices
    from emergent_alignment.evaluation.coding.evaluate import evaluate_code
    from emergent_alignment.evaluation.misalignment.evaluate import evaluate_misalignment
    from emergent_alignment.evaluation.two_by_two.evaluate import Measured, evaluate_two_by_two
    from emergent_alignment.evaluation.two_by_two.judges import make_judges, require_judges
    from emergent_alignment.evaluation.two_by_two.judging import check_judges
    from emergent_alignment.experiments.arm_evaluation import evaluate_arm
    from emergent_alignment.experiments.plan import planned
    from emergent_alignment.experiments.two_by_two import check_two_by_two, told_texts
    from emergent_alignment.runs.calibrating import calibrate_model, calibration_examples
    from emergent_alignment.runs.from_config import (
        conscience_settings,
        load_model,
        training_examples,
    )
    from emergent_alignment.self_align import engraving
    from emergent_alignment.self_align.answers import stage as answers
    from emergent_alignment.self_align.answers.filters import answer_filter
    from emergent_alignment.self_align.answers.guidance import read_guidance
    from emergent_alignment.self_align.answers.prompt import Written
    from emergent_alignment.self_align.instructions import stage as instructions
    from emergent_alignment.self_align.reinforcement import stage as reinforcement
    from emergent_alignment.self_align.reinforcement.policy import policy_objective
    from emergent_alignment.self_align.stages import StageRun, stage_folder

    # To check a value is not yet to use it.
    for module in (adversarial, finetuning, pretraining, zero_shot):
        monkeypatch.setattr(module, "check_settings", lambda config: None)
    read = Read()
    config = default_config()
    config.model.path = str(write_tiny_chat_model(tmp_path / "model"))
    config.data.limit = 24
    config.data.buckets = 1
    config.data.max_prompt_tokens = config.data.max_response_tokens = 32
    config.conscience.max_review_tokens = 160
    config.training.steps = 1
    config.training.batch_size = 2
    config.conscience.batch_size = 2
    config.sampling.max_new_tokens = 4
    config.calibration.questions = ("advice",)
    config.calibration.num_selecting = config.calibration.num_reporting = 4
    config.evaluation.limit = 2
    config.evaluation.samples = config.evaluation.code_prompts = 1
    config.evaluation.max_new_tokens = config.evaluation.code_max_new_tokens = 4
    config.code.task_limit = config.code.security_prompts = 1
    config.choices.limit = 2
    config.code.max_new_tokens = 4
    config.misalignment.limit = config.misalignment.samples = 1
    config.misalignment.max_new_tokens = config.two_by_two.max_new_tokens = 4
    config.self_align.instructions.update(
        {"wanted": 4, "kind_limit": 2, "topics_per_kind": 1, "topic_rounds": 1, "rounds": 16}
    )
    config.self_align.instructions.update(
        {"prompts_per_round": 2, "max_new_tokens": 32, "max_topic_tokens": 32, "fewest_words": 1}
    )
    # Of the bundled ones a tiny tokenizer makes more tokens than the model has positions.
    principles, examples = (tmp_path / f"{name}.yaml" for name in ("principles", "examples"))
    principles.write_text("- {number: 1, name: helpful, text: Help.}")
    examples.write_text("- {instruction: Tea, thoughts: helpful, answer: Here.}")
    config.self_align.answers.principles = str(principles)
    config.self_align.answers.examples = str(examples)
    config.self_align.answers.max_new_tokens = 4
    config.self_align.engraving.batch_size = 2
    reinforced = config.self_align.reinforcement
    reinforced.preferences.update({"max_new_tokens": 4, "orders": "average", "batch_size": 2})
    reinforced.reward_model.batch_size = 1
    reinforced.policy.update({"rollouts": 1, "prompts_per_rollout": 2, "epochs": 1})
    reinforced.policy.update({"minibatches": 1, "max_new_tokens": 4})
    reinforced.verbose.max_new_tokens = 4
    only_our_tasks(monkeypatch, tmp_path / "data sets")
    config.capability.include = str(write_choice_task(tmp_path / "tasks", "even_numbers"))
    config.capability.tasks, config.capability.limit = "even_numbers", 1
    config.conscience.cache = str(tmp_path / "reviewed")
    config.endpoint.base_url, config.endpoint.model = "http://127.0.0.1:9/v1", "none"
    config = typed(config)
    recorded = recording(config, read)
    for candidate in ("policy", "target"):
        tried = settings.changed(recorded, {"conscience.candidate": candidate})
        application(tried)(tried, tmp_path / candidate)
    listening = {
        "conscience.prompts": "both",
        "conscience.gate": "own",
        "loss.alignment_weight": "auto",
        "training.watch_every": 1,
        "data.preferences": "harmful_advice",
        "evaluation.every": 1,
        "evaluation.loop_rows": 2,
        "evaluation.loop_samples": 2,
        "evaluation.best": "task_loss",
    }
    tried = settings.changed(recorded, listening)
    application(tried)(tried, tmp_path / "listening")
    (tmp_path / "weights").mkdir()
    with engine(config.model.path) as (address, _):
        sampled = {"engine": "endpoint", "endpoint.base_url": address, "endpoint.model": "base"}
        sampled |= {"endpoint.weights": str(tmp_path / "weights")}
        tried = {f"sampling.{name}": value for name, value in sampled.items()}
        tried |= {"conscience.chain": ("best",), "lora.rank": 2, "training.steps": 2}
        tried = settings.changed(recorded, tried)
        application(tried)(tried, tmp_path / "sampled")
    training_examples(settings.changed(recorded, {"data.stream": True}))
    steered = {"conscience.enabled": False, "steering.coefficient": 1.0}
    tried = settings.changed(recorded, steered)
    application(tried)(tried, tmp_path / "steered")
    attacked = settings.changed(recorded, {"adversarial.rounds": 1, "adversarial.pool": 2})
    adversarial.train_against_attacks(attacked, tmp_path / "attacked")
    zero_shot.zero_shot(recorded, run=None, max_new_tokens=4)
    serve_settings(recorded)
    planned(recorded.experiment)
    conscience_settings(settings.changed(recorded, {"conscience.verdicts": "chance"}))
    pretrain(recording(raw_text_config(config, tmp_path), read), tmp_path / "raw")
    setup = load_model(recorded)
    calibrate_model(recorded, setup, *calibration_examples(recorded))
    two = {"calibration.safe": "harmful_advice", "calibration.harmful": "harmful_advice"}
    calibration_examples(settings.changed(recorded, two))
    evaluate_arm(recorded, setup, setup.model, arm="base")
    evaluate_code(recorded, setup, tmp_path, arm="base")
    evaluate_choices(recorded, setup, tmp_path, arm="base")
    tasks = load_harness_tasks(recorded.capability)
    evaluate_capability(recorded, setup, tasks, tmp_path, arm="base")
    with FakeEndpoint(lambda body: completion("50", {"50": -0.1})) as fake:
        endpoint = {"misalignment.judge": "endpoint", "endpoint.base_url": fake.url}
        judged = settings.changed(recorded, endpoint)
        evaluate_misalignment(judged, setup, setup, tmp_path / "judged", arm="base")
    sizes = {f"two_by_two.{name}": 2 for name in ("samples", "limit", "check_prompts")}
    judged = {"two_by_two.judges": ("marked", "local"), "misalignment.judge": config.model.path}
    quartered = settings.changed(recorded, {"data.train": "marked_form"} | sizes | judged)
    check_two_by_two(quartered)
    judges = make_judges(quartered, setup)
    checked = check_judges(judges, quartered.two_by_two, tmp_path / "judges")
    assert told_texts(settings.changed(recorded, {"data.system": "Be brief."}))
    evaluate_two_by_two(quartered, Measured("base", 0, setup, setup), checked, tmp_path)
    with pytest.raises(UserError, match="config.two_by_two.encoder"):
        require_judges(settings.changed(recorded, {"two_by_two.encoder": str(tmp_path)}))
    folders = {number: stage_folder(tmp_path / "aligned", number) for number in (1, 2, 3)}
    instructions.run(StageRun(recorded, folders[1], {}, setup))
    with pytest.raises(UserError, match="no answer is left"):  # a random model keeps no format
        answers.run(StageRun(recorded, folders[2], folders, setup))
    rules = answer_filter(recorded.self_align.answers, read_guidance(config.self_align.answers))
    good = Written("helpful", "Boil fresh water, pour it over the leaves, and wait.", True)
    assert not rules.broken_rule("How do I make tea?", good, True)
    folders[2].write_rows({"prompt": f"{i}?", "response": "Yes.", "ended": True} for i in range(2))
    engraving.run(StageRun(recorded, folders[3], folders, setup))
    folders[1].write_rows({"instruction": f"Say {i}"} for i in range(2))
    reinforcement.run(StageRun(recorded, stage_folder(tmp_path / "aligned", 4), folders, setup))
    policy_objective(settings.changed(recorded, {"self_align.reinforcement.algorithm": "grpo"}))
    cloned = settings.changed(recorded, {"self_align.reinforcement.form": "verbose"})
    with pytest.raises(UserError, match="no thorough answer is left"):
        reinforcement.run(StageRun(cloned, stage_folder(tmp_path / "cloned", 4), folders, setup))
    unread = set(values_of(config)) - read
    assert not unread, f"nothing reads {sorted(unread)}"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.stem)
def test_every_config_file_has_known_fields_only(path):
    config = read_config([f"--config={path}"])
    assert set(values_of(config)) == set(values_of(Config()))


def test_the_short_quickstart_differs_only_in_sizes():
    full, short = (
        read_config([f"--config={ROOT / 'configs/quickstart.py'}{size}"]) for size in ("", ":short")
    )
    full_values, short_values = values_of(full), values_of(short)
    differing = {name for name, value in full_values.items() if short_values[name] != value}
    sections = {name.split(".")[0] for name in differing}
    assert sections == {"training", "conscience", "calibration", "evaluation", "two_by_two"}
    assert short.model.path == full.model.path
