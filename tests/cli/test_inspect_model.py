"""A task of inspect_ai on a tiny model of ours: answers are those of the sampler, whatever batches
they are in."""

import asyncio

import numpy as np
import pytest

inspect_model = pytest.importorskip("inspect_ai.model", reason="the extra `inspect`")
from inspect_ai import Task, eval  # noqa: E402 (where it is installed)
from inspect_ai.dataset import Sample  # noqa: E402
from inspect_ai.scorer import includes  # noqa: E402
from random_batches import assert_trees_close  # noqa: E402
from tiny_runs import tiny_run_config  # noqa: E402

from emergent_alignment.applications.finetuning import finetune  # noqa: E402
from emergent_alignment.cli.config_files import typed  # noqa: E402
from emergent_alignment.cli.inspect_model import InspectModel  # noqa: E402
from emergent_alignment.errors import UserError  # noqa: E402
from emergent_alignment.generation.text import generate  # noqa: E402

ChatMessageUser, GenerateConfig = inspect_model.ChatMessageUser, inspect_model.GenerateConfig
QUESTIONS = ["Is it late?", "What is a river, and where does it go?", "Yes or no?"]


@pytest.fixture(scope="module")
def provider(model_directory):
    return InspectModel(str(model_directory), batch_size=4)


def asked(provider, *questions: str, **settings) -> list:
    """All questions at once, as inspect_ai asks them."""
    config = GenerateConfig(max_tokens=12, **settings)

    async def every():
        return await asyncio.gather(
            *(
                provider.generate([ChatMessageUser(content=text)], [], "none", config)
                for text in questions
            )
        )

    return asyncio.run(every())


def test_answers_are_the_sampler_s_whatever_they_are_asked_with(provider):
    together = [out.completion for out in asked(provider, *QUESTIONS, temperature=0.0)]
    conversations = [[{"role": "user", "content": text}] for text in QUESTIONS]
    expected = generate(provider.model, conversations, max_new_tokens=12, temperature=0.0)
    assert together == [text.strip() for text in expected]
    assert [asked(provider, text, temperature=0.0)[0].completion for text in QUESTIONS] == together


def test_a_prompt_that_is_asked_again_draws_anew_and_a_new_run_draws_the_same(provider):
    provider._asked.clear()
    outputs = asked(provider, QUESTIONS[0], num_choices=4)[0]
    texts = [choice.message.text for choice in outputs.choices]
    assert len(set(texts)) > 1
    provider._asked.clear()
    again = asked(provider, *QUESTIONS[1:], QUESTIONS[0], num_choices=4)[-1]
    assert [choice.message.text for choice in again.choices] == texts


def test_log_probs_are_of_every_sampled_token(provider):
    (output,) = asked(provider, QUESTIONS[0], logprobs=True, temperature=0.0)
    told = output.choices[0].logprobs.content
    assert len(told) == output.usage.output_tokens
    assert all(one.logprob <= 0 and np.isfinite(one.logprob) for one in told)


def test_what_is_not_offered_is_refused_by_its_name(provider):
    for settings, word in (
        ({"top_logprobs": 5}, "top_logprobs"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
    ):
        with pytest.raises(UserError, match=word):
            asked(provider, QUESTIONS[0], **settings)


def test_a_task_runs_with_the_provider_by_its_name(model_directory, tmp_path):
    task = Task(dataset=[Sample(input=text, target="zzz") for text in QUESTIONS], scorer=includes())
    (log,) = eval(
        task,
        model=f"emergent-alignment/{model_directory}",
        max_tokens=8,
        log_dir=str(tmp_path),
        display="none",
    )
    assert log.status == "success" and len(log.samples) == len(QUESTIONS)


def test_a_run_of_the_command_line_answers_with_what_it_has_learnt(model_directory, tmp_path):
    """Its record holds settings of every command's, those of serve among them."""
    config = tiny_run_config(model_directory)
    config.conscience.enabled = False
    config.training.steps = 2
    trained = finetune(typed(config), tmp_path / "run").trainable
    ours = InspectModel("mine", run=str(tmp_path / "run"))
    assert_trees_close(ours.model.adapters, trained, 0.0)
    (answer,) = asked(ours, QUESTIONS[0], temperature=0.0)
    assert answer.completion != ""
