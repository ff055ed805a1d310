"""The endpoint that a config names."""

import os

from emergent_alignment.errors import UserError
from emergent_alignment.generation.endpoint import Endpoint
from emergent_alignment.runs.config import RunConfig


def endpoint_of(config: RunConfig) -> Endpoint:
    """The endpoint of config.endpoint, its key read from the environment. Where no model is
    named the endpoint is asked for the only one that it serves.

    Raises UserError where there is no address, and where the endpoint cannot say its model.
    """
    settings = config.endpoint
    if not settings.base_url:
        raise UserError("config.endpoint.base_url: name the endpoint, as http://127.0.0.1:8000/v1")
    options = {
        "api_key": os.environ.get(settings.api_key_variable, ""),
        "timeout_seconds": settings.timeout_seconds,
        "retries": settings.retries,
    }
    model = settings.model or _only_model(Endpoint(settings.base_url, "", **options))
    return Endpoint(settings.base_url, model, **options)


def _only_model(endpoint: Endpoint) -> str:
    served = endpoint.served_models()
    if len(served) != 1:
        raise UserError(
            f"config.endpoint.model: {endpoint.base_url} serves {len(served)} models "
            f"({', '.join(served[:8])}); name one"
        )
    return served[0]
