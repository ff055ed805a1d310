"""A server of the user's that samples for a run: vLLM or SGLang, told of each new policy.

Both answer OpenAI's completions; each has paths of its own for weights. What a run asks of it and
makes of its answers is in runs/rollouts.py.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from emergent_alignment.errors import UserError
from emergent_alignment.generation.completion import Unreadable, json_object_of, shortened
from emergent_alignment.generation.endpoint import TRANSIENT, Endpoint, EndpointError, ServerSection
from emergent_alignment.settings import setting

Loader = Literal["vllm", "sglang"]
_NEEDS = {
    "vllm": "vLLM takes adapters where it runs with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True "
    "--enable-lora --max-lora-rank of config.lora.rank or more, and can read that folder",
    "sglang": "SGLang takes adapters where it runs with --enable-lora --max-lora-rank of "
    "config.lora.rank or more, and can read that folder",
}


@dataclass(frozen=True)
class RolloutSection(ServerSection):
    """The server that samples in this program's place, where sampling.engine is endpoint."""

    timeout_seconds: float = setting(
        600.0, "How long an answer, or loading weights, may take.", more_than=0, at_most=86400
    )
    concurrency: int = setting(64, "Requests of each host at once.", more_than=0)
    load: Loader = setting(
        "vllm", "By whose paths the server is told of new weights: vLLM's (adapters) or SGLang's."
    )
    weights: str = setting(
        "", "Folder that the server reads under the same name: the policy's versions go there."
    )
    every: int = setting(
        1, "Steps between versions; between them answers are of an older policy.", more_than=0
    )


@dataclass(frozen=True)
class RolloutServer:
    """The server: its endpoint, under the name of the base model; whose paths it has; and whether
    versions are adapters beside the base, or whole models in its place."""

    endpoint: Endpoint
    loader: Loader
    adapters: bool

    def check(self) -> None:
        """Raise UserError where it does not answer, or does not know the base model. What SGLang
        was given whole, it names after its folder."""
        served = self.endpoint.served_models()
        if self.adapters and self.endpoint.model not in served:
            raise UserError(
                f"config.sampling.endpoint.model: {self.endpoint.base_url} does not serve "
                f"{self.endpoint.model!r}; it serves {', '.join(served[:8])}"
            )

    def load(self, name: str, folder: Path) -> None:
        """Have it read a version. Raises EndpointError where it refuses."""
        path, body = "/update_weights_from_disk", {"model_path": str(folder)}
        if self.adapters:
            self.unload(name)  # left from a run that was killed, say
            path, body = "/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)}
        try:
            self._tell(path, body, f"loading {folder}")
        except EndpointError as error:
            needs = _NEEDS[self.loader] if self.adapters else "can it read that folder?"
            raise EndpointError(f"{error}; {needs}", error.kind) from None

    def unload(self, name: str) -> None:
        """Have it forget a version, if it has it. A whole model is overwritten by the next."""
        if not self.adapters:
            return
        try:
            self._tell("/unload_lora_adapter", {"lora_name": name}, f"unloading {name}")
        except EndpointError as error:
            if error.kind != "request":
                raise

    def asked_for(self, name: str) -> Endpoint:
        """The endpoint of a version that it has read."""
        if not self.adapters:
            return self.endpoint
        base = f"{self.endpoint.model}:" if self.loader == "sglang" else ""
        return replace(self.endpoint, model=base + name)

    def _tell(self, path: str, body: dict, asked: str) -> None:
        """Once: what has been done already would be refused the second time."""
        root = self.endpoint.base_url
        if self.loader == "sglang":
            root = root.removesuffix("/v1")
        teller = replace(self.endpoint, base_url=root, retries=0)
        said = teller.post(path, body, asked)
        with suppress(Unreadable):  # vLLM says it in words
            if json_object_of(said).get("success") is False:
                raise EndpointError(
                    f"{root}: asked for {asked}, and got {shortened(said)}", "request"
                )


def is_down(error: EndpointError) -> bool:
    """Whether another attempt may find it better."""
    return error.kind in TRANSIENT
