"""Every field of the config is read by something, and every config file has known fields only."""

from pathlib import Path

import ml_collections
import pytest
from fake_endpoint import FakeEndpoint, completion
from harness_tasks import only_our_tasks, write_choice_task
from tiny_chat_model import write_tiny_chat_model

from emergent_alignment.cli.configuration import read_config
from emergent_alignment.config import default_config
from emergent_alignment.errors import UserError

ROOT = Path(__file__).parents[1]


def leaves(config, prefix=""):
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


class Recording:
    """Stands for a (section of a) config, and notes which leaves are read."""

    def __init__(self, config, read, prefix=""):
        self.__dict__.update(_config=config, _read=read, _prefix=prefix)

    def __getattr__(self, name):
        if name == "to_dict":
            return self._config.to_dict
        value = getattr(self._config, name)
        if isinstance(value, ml_collections.ConfigDict):
            return Recording(value, self._read, f"{self._prefix}{name}.")
        self._read.add(self._prefix + name)
        return value

    __getitem__ = __getattr__

    def __iter__(self):
        return iter(self._config)

    def get(self, name, default=None):
        return self[name] if name in self._config else default

    def with_changes(self, **changes):
        copied = ml_collections.ConfigDict(self._config.to_dict())
        for name, value in changes.items():
            section, field = name.split("__")
            copied[section][field] = value
        return Recording(copied, self._read)


def raw_text_config(config, folder):
    """The same small sizes for raw text: two steps, whose continuations are reviewed."""
    (folder / "corpus").mkdir()
    (folder / "corpus" / "a.txt").write_text("Boats go out and boats come in. " * 40)
    raw = ml_collections.ConfigDict(config.to_dict())
    raw.lora.rank = 0
    raw.training.steps = 2
    raw.pretraining.update({"corpus": str(folder / "corpus"), "window_tokens": 16, "auc": 0.0})
    raw.pretraining.review_share = 1.0
    raw.pretraining.random.update({"layers": 1, "width": 16, "inner": 16, "vocabulary": 300})
    raw.calibration.layouts, raw.calibration.polarities = ("quote",), ("positive",)
    return raw


def test_every_field_is_read(tmp_path, monkeypatch):
    from emergent_alignment.applications import finetuning
    from emergent_alignment.applications.adversarial import training as adversarial
    from emergent_alignment.applications.by_name import application
    from emergent_alignment.applications.pretraining import training as pretraining
    from emergent_alignment.applications.pretraining.training import pretrain
    from emergent_alignment.applications.zero_shot import answerer as zero_shot
    from emergent_alignment.applications.zero_shot.serving.settings import serve_settings
    from emergent_alignment.cli.experiment import planned
    from emergent_alignment.evaluation.capability import evaluate_capability, load_harness_tasks
    from emergent_alignment.evaluation.choices.evaluate import evaluate_choices
    from emergent_alignment.evaluation.coding.evaluate import evaluate_code
    from emergent_alignment.evaluation.misalignment.evaluate import evaluate_misalignment
    from emergent_alignment.experiments.arm_evaluation import evaluate_arm
    from emergent_alignment.runs.calibrating import calibrate_model, calibration_examples
    from emergent_alignment.runs.from_config import conscience_settings, load_model
    from emergent_alignment.self_align import engraving
    from emergent_alignment.self_align.answers import stage as answers
    from emergent_alignment.self_align.instructions import stage as instructions
    from emergent_alignment.self_align.reinforcement import stage as reinforcement
    from emergent_alignment.self_align.stages import StageRun, stage_folder

    # To check a value is not yet to use it.
    for module in (adversarial, finetuning, pretraining, zero_shot):
        monkeypatch.setattr(module, "check_config", lambda config: None)
    read = set()
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
    config.misalignment.max_new_tokens = 4
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
    recording = Recording(config, read)
    for candidate in ("policy", "target"):
        changed = recording.with_changes(conscience__candidate=candidate)
        application(changed)(changed, tmp_path / candidate)
    attacked = recording.with_changes(adversarial__rounds=1, adversarial__pool=2)
    adversarial.train_against_attacks(attacked, tmp_path / "attacked")
    zero_shot.zero_shot(recording, run=None, max_new_tokens=4)
    serve_settings(recording)
    planned(recording)
    conscience_settings(recording.with_changes(conscience__verdicts="chance"))
    pretrain(Recording(raw_text_config(config, tmp_path), read), tmp_path / "raw")
    setup = load_model(recording)
    calibrate_model(recording, setup, *calibration_examples(recording))
    two = {"calibration__safe": "harmful_advice", "calibration__harmful": "harmful_advice"}
    calibration_examples(recording.with_changes(**two))
    evaluate_arm(recording, setup, setup.model, arm="base")
    evaluate_code(recording, setup, tmp_path, arm="base")
    evaluate_choices(recording, setup, tmp_path, arm="base")
    tasks = load_harness_tasks(recording)
    evaluate_capability(recording, setup, tasks, tmp_path, arm="base")
    with FakeEndpoint(lambda body: completion("50", {"50": -0.1})) as fake:
        judged = recording.with_changes(misalignment__judge="endpoint", endpoint__base_url=fake.url)
        evaluate_misalignment(judged, setup, setup, tmp_path / "judged", arm="base")
    folders = {number: stage_folder(tmp_path / "aligned", number) for number in (1, 2, 3)}
    instructions.run(StageRun(recording, folders[1], {}, setup))
    with pytest.raises(UserError, match="no answer is left"):  # a random model keeps no format
        answers.run(StageRun(recording, folders[2], folders, setup))
    folders[2].write_rows({"prompt": f"{i}?", "response": "Yes.", "ended": True} for i in range(2))
    engraving.run(StageRun(recording, folders[3], folders, setup))
    folders[1].write_rows({"instruction": f"Say {i}"} for i in range(2))
    reinforcement.run(StageRun(recording, stage_folder(tmp_path / "aligned", 4), folders, setup))
    cloned = Recording(ml_collections.ConfigDict(config.to_dict()), read)
    cloned._config.self_align.reinforcement.form = "verbose"
    with pytest.raises(UserError, match="no thorough answer is left"):
        reinforcement.run(StageRun(cloned, stage_folder(tmp_path / "cloned", 4), folders, setup))
    unread = set(leaves(config)) - read
    assert not unread, f"nothing reads {sorted(unread)}"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.stem)
def test_every_config_file_has_known_fields_only(path):
    config = read_config([f"--config={path}"])
    assert set(leaves(config)) == set(leaves(default_config()))


def test_the_short_quickstart_differs_only_in_sizes():
    full, short = (
        read_config([f"--config={ROOT / 'configs/quickstart.py'}{size}"]) for size in ("", ":short")
    )
    differing = {
        f"{section}.{name}"
        for section in full
        if isinstance(full[section], ml_collections.ConfigDict)
        for name in full[section]
        if full[section][name] != short[section][name]
    }
    assert {name.split(".")[0] for name in differing} == {"training", "calibration", "evaluation"}
    assert short.model.path == full.model.path
