"""The endpoint that a config names."""

import os

from emergent_alignment.errors import UserError
from emergent_alignment.generation.endpoint import Endpoint, ServerSection


def endpoint_of(settings: ServerSection, section: str = "config.endpoint") -> Endpoint:
    """The endpoint of a config's section, its key read from the environment. Where no model is
    named the endpoint is asked for the only one that it serves.

    Raises UserError where there is no address, and where the endpoint cannot say its model.
    """
    if not settings.base_url:
        raise UserError(f"{section}.base_url: name the endpoint, as http://127.0.0.1:8000/v1")
    options = {
        "api_key": os.environ.get(settings.api_key_variable, ""),
        "timeout_seconds": settings.timeout_seconds,
        "retries": settings.retries,
    }
    model = settings.model or _only_model(Endpoint(settings.base_url, "", **options), section)
    return Endpoint(settings.base_url, model, **options)


def _only_model(endpoint: Endpoint, section: str) -> str:
    served = endpoint.served_models()
    if len(served) != 1:
        raise UserError(
            f"{section}.model: {endpoint.base_url} serves {len(served)} models "
            f"({', '.join(served[:8])}); name one"
        )
    return served[0]
