"""transformers' side of the sampling benchmark: generate with its KV cache, on fixed prompts.

Runs in the environment `torch` of peers.py.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from worker_protocol import Step, serve


def prepare(settings: dict) -> Step:
    """settings: inputs (a directory), new_tokens. An order: batch, temperature, check."""
    directory = Path(settings["inputs"])
    model = AutoModelForCausalLM.from_pretrained(directory / "model", dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None  # nothing ends a row early
    prompts = torch.from_numpy(np.load(directory / "tokens.npz")["prompt"]).long()
    torch.manual_seed(0)

    def step(order: dict) -> dict:
        rows = prompts[: order["batch"]]
        drawn = {"do_sample": True, "temperature": order["temperature"], "top_k": 0, "top_p": 1.0}
        with torch.inference_mode():
            generated = model.generate(
                rows,
                attention_mask=torch.ones_like(rows),
                max_new_tokens=settings["new_tokens"],
                use_cache=True,
                pad_token_id=0,
                return_dict_in_generate=True,
                output_logits=order["check"],
                **(drawn if order["temperature"] else {"do_sample": False}),
            )
            tokens = generated.sequences[:, rows.shape[1] :]
            if not order["check"]:
                return {}
            log_probs = torch.stack(generated.logits, dim=1).log_softmax(-1)
            log_probs = log_probs.gather(-1, tokens[..., None])[..., 0]
        return {"tokens": tokens.tolist(), "log_probs": log_probs.tolist()}

    return step


if __name__ == "__main__":
    serve(prepare)
