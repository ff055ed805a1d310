"""What vLLM and SGLang are told of new weights, and how each is asked for them."""

import pytest

from emergent_alignment.generation.endpoint import Endpoint, EndpointError
from emergent_alignment.generation.rollout_server import RolloutServer

# (whose paths, adapters?) → (what is told for a version, the name it is then asked for by)
TOLD = {
    ("vllm", True): (
        [
            ("http://127.0.0.1:9/v1/unload_lora_adapter", {"lora_name": "v2"}),
            ("http://127.0.0.1:9/v1/load_lora_adapter", {"lora_name": "v2", "lora_path": "/w/v2"}),
        ],
        "v2",
    ),
    ("sglang", True): (
        [
            ("http://127.0.0.1:9/unload_lora_adapter", {"lora_name": "v2"}),
            ("http://127.0.0.1:9/load_lora_adapter", {"lora_name": "v2", "lora_path": "/w/v2"}),
        ],
        "base:v2",
    ),
    ("sglang", False): (
        [("http://127.0.0.1:9/update_weights_from_disk", {"model_path": "/w/v2"})],
        "base",
    ),
}


def server(loader: str, adapters: bool) -> RolloutServer:
    return RolloutServer(Endpoint("http://127.0.0.1:9/v1", "base"), loader, adapters)


@pytest.mark.parametrize("kind", TOLD)
def test_each_is_told_by_its_own_paths_and_asked_by_its_own_names(monkeypatch, kind):
    told = []

    def post(self, path, body, asked):
        told.append((self.base_url + path, body))
        if "unload" in path:
            raise EndpointError("it has none of that name", "request")
        return b"Success: LoRA adapter 'v2' added successfully."

    monkeypatch.setattr(Endpoint, "post", post)
    found = server(*kind)
    found.load("v2", "/w/v2")
    assert (told, found.asked_for("v2").model) == TOLD[kind]


@pytest.mark.parametrize("adapters", [True, False])
def test_a_refusal_that_comes_as_success_is_one(monkeypatch, adapters):
    said = b'{"success": false, "message": "the rank is too large"}'
    monkeypatch.setattr(Endpoint, "post", lambda self, path, body, asked: said)
    with pytest.raises(EndpointError, match="asked for .*the rank is too large") as raised:
        server("sglang", adapters).load("v2", "/w/v2")
    assert "\n" not in str(raised.value)


def test_a_server_that_is_gone_is_not_taken_for_one_without_the_version(monkeypatch):
    def post(self, path, body, asked):
        raise EndpointError("no connection", "unreachable")

    monkeypatch.setattr(Endpoint, "post", post)
    with pytest.raises(EndpointError, match="no connection"):
        server("vllm", True).unload("v1")
