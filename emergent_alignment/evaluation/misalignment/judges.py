"""Which judge a config names: the frozen copy, another local model, or an endpoint."""

import re
from pathlib import Path

import jax.numpy as jnp

from emergent_alignment.data.chat import read_chat
from emergent_alignment.evaluation.misalignment.endpoint_judge import EndpointJudge
from emergent_alignment.evaluation.misalignment.judging import Judge
from emergent_alignment.evaluation.misalignment.local_judge import LocalJudge
from emergent_alignment.evaluation.settings import EvaluationConfig
from emergent_alignment.models.model import load
from emergent_alignment.runs.endpoints import endpoint_of
from emergent_alignment.runs.from_config import Setup

FROZEN = "frozen"
ENDPOINT = "endpoint"


def make_judge(config: EvaluationConfig, base: Setup) -> Judge:
    """The judge of config.misalignment.judge; `base` holds the frozen copy. Raises UserError
    where it cannot be read or reached, or cannot give what a judge must."""
    settings, batch_size = config.misalignment, config.conscience.batch_size
    least_mass = settings.least_number_mass
    if settings.judge == FROZEN:
        return LocalJudge(FROZEN, base.model, base.chat, least_mass, batch_size)
    if settings.judge == ENDPOINT:
        endpoint = endpoint_of(config)
        name = file_name(endpoint.model)
        return EndpointJudge(name, endpoint, least_mass, settings.parallel_requests)
    model = load(
        settings.judge,
        dtype=jnp.dtype(config.model.dtype),
        param_dtype=jnp.dtype(config.model.param_dtype),
        mesh=base.mesh,
    )
    chat = read_chat(model.tokenizer, settings.judge)
    return LocalJudge(file_name(settings.judge), model, chat, least_mass, batch_size)


def file_name(model_name: str) -> str:
    """A model's name as a part of file names: the last part of a path or hub id."""
    name = Path(model_name).name.removesuffix(".gguf")
    return re.sub(r"[^\w.-]+", "-", name) or "judge"
