"""A small server as vLLM and SGLang are, a process of its own: our sampler behind completions of
token ids, with paths to load and unload adapters or whole weights. It prints its address."""

import argparse
import contextlib
import json
import subprocess
import sys
import threading
from dataclasses import replace
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from emergent_alignment.data.chat import read_chat
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import Batching, sample_answers
from emergent_alignment.models import names
from emergent_alignment.models.lora import LoraConfig
from emergent_alignment.models.model import Model, load
from emergent_alignment.randomness import Purpose, key_for


def with_adapters_of(model: Model, folder: Path) -> Model:
    """The model with the adapters of a PEFT folder."""
    told = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    adapters = {}
    for name, (module, _) in names.PROJECTION_NAMES.items():
        prefixes = [
            f"base_model.model.model.layers.{layer}.{module}"
            for layer in range(model.config.num_layers)
        ]
        if f"{prefixes[0]}.lora_A.weight" in tensors:
            adapters[name] = {
                ours: np.stack([tensors[f"{prefix}.lora_{theirs}.weight"].T for prefix in prefixes])
                for ours, theirs in (("a", "A"), ("b", "B"))
            }
    lora = LoraConfig(rank=told["r"], alpha=told["lora_alpha"], rank_stabilized=told["use_rslora"])
    return replace(model, lora=lora, adapters=adapters)


class Served:
    """The base model and what was loaded, by name. With `deaf` all that is loaded is taken for the
    base."""

    def __init__(self, given: argparse.Namespace):
        self.name, self.given, self.lock = "base", given, threading.Lock()
        self.base = load(str(given.model))
        self.adapters: dict[str, Model] = {}

    @cached_property
    def chat(self):
        return read_chat(self.base.tokenizer)

    def models(self, body: dict) -> dict:
        return {"object": "list", "data": [{"id": name} for name in (self.name, *self.adapters)]}

    def load_adapter(self, body: dict) -> dict:
        if body["lora_name"] in self.adapters:
            raise ValueError(f"The lora adapter {body['lora_name']!r} has already been loaded.")
        model = with_adapters_of(self.base, Path(body["lora_path"]))
        self.adapters[body["lora_name"]] = self.base if self.given.deaf else model
        return {"success": True}

    def unload_adapter(self, body: dict) -> dict:
        if body["lora_name"] not in self.adapters:
            raise LookupError(f"The lora adapter {body['lora_name']!r} cannot be found.")
        del self.adapters[body["lora_name"]]
        return {"success": True}

    def update_weights(self, body: dict) -> dict:
        self.base = load(body["model_path"])
        return {"success": True, "message": "Succeeded to update model weights."}

    def complete(self, body: dict) -> dict:
        name = body["model"].removeprefix(f"{self.name}:")
        if name != self.name and name not in self.adapters:
            raise LookupError(f"The model {name!r} does not exist.")
        model = self.adapters.get(name, self.base)
        assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (-1, 0.0, 1.0)
        assert body["stop_token_ids"] == list(self.chat.end_tokens)
        sampler = sampler_settings(
            self.chat.end_tokens,
            body["max_tokens"],
            temperature=body["temperature"],
            top_p=body["top_p"],
        )
        key = key_for(body["seed"], Purpose.GENERATED)
        asked = model, model.policy, self.chat, [body["prompt"]], key, sampler, Batching(1)
        with self.lock:
            [(_, answer)] = sample_answers(*asked)
        kept = [token for token in answer.tokens if token not in self.chat.end_tokens]
        log_probs = [float(value) for value in answer.log_probs]
        choice = {
            "text": self.base.tokenizer.decode(kept, skip_special_tokens=True),
            "finish_reason": "stop" if answer.ended else "length",
            "logprobs": {"token_logprobs": log_probs},
        }
        if self.given.tokens and body["return_token_ids"]:
            choice["token_ids"] = answer.tokens
        return {"object": "text_completion", "choices": [choice]}


def handler_of(served: Served) -> type[BaseHTTPRequestHandler]:
    root = "" if served.given.sglang else "/v1"
    paths = {
        "/v1/models": served.models,
        "/v1/completions": served.complete,
        f"{root}/load_lora_adapter": served.load_adapter,
        f"{root}/unload_lora_adapter": served.unload_adapter,
        "/update_weights_from_disk": served.update_weights,
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer({})

        def do_POST(self):
            self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def answer(self, body: dict) -> None:
            status, said = 404, {"error": {"message": "no such path"}}
            try:
                if self.path in paths:
                    status, said = 200, paths[self.path](body)
            except LookupError as error:
                said = {"error": {"message": str(error)}}
            except (ValueError, OSError) as error:
                status, said = 400, {"error": {"message": str(error)}}
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *told):
            """Nothing."""

    return Handler


@contextlib.contextmanager
def engine(model_directory, *flags):
    """Runs one: (its address, its process)."""
    command = [sys.executable, __file__, str(model_directory), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().strip()
            assert address, "the engine did not start"
            yield address, process
        finally:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    for flag in ("--sglang", "--deaf", "--tokens"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    served = Served(given)
    server = ThreadingHTTPServer(("127.0.0.1", given.port), handler_of(served))
    print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
