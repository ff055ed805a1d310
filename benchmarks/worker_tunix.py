"""Tunix's side: DPOTrainer's own compiled step (it has no SFT term), on a fixed batch.

Runs in the environment `tunix` of peers.py. Tunix's Llama reads no rope_theta and rotates with
1,000,000 always (apply_rope's default), so the inputs must be written with this base.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import qwix
from flax import nnx
from safetensors.numpy import load_file
from tunix.models.llama3 import model as llama
from tunix.models.llama3.params import create_model_from_safe_tensors
from tunix.sft.dpo.dpo_trainer import DPOTrainer, DPOTrainingConfig, TrainingInput
from worker_protocol import Step, serve


def prepare(settings: dict) -> Step:
    """settings: inputs, mode, learning_rate, peer_remat; see worker_ours.prepare."""
    directory = Path(settings["inputs"])
    base = load_model(directory / "model", settings["peer_remat"])
    if settings["mode"] == "lora":
        model = adapted(base, directory / "adapters")
    else:
        model = jax.tree.map(jnp.array, base)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(settings["learning_rate"], weight_decay=0.01, mask=matrices),
    )
    config = DPOTrainingConfig(eval_every_n_steps=1_000_000, beta=0.1)
    trainer = DPOTrainer(model, base, optimizer, config)
    tokens = {name: jnp.asarray(rows) for name, rows in np.load(directory / "tokens.npz").items()}
    batch = TrainingInput(
        **{f"{name}_ids": rows for name, rows in tokens.items()},
        **{f"{name}_mask": jnp.ones_like(rows) for name, rows in tokens.items()},
    )
    train_step, _ = trainer.jit_train_and_eval_step(cache_nnx_graph=True)

    def step(_: dict) -> dict:
        # As PeftTrainer.train does: the reference's log-probs, then the compiled step.
        loss, _, norm = train_step(trainer._prepare_inputs(batch))
        trained = nnx.state(trainer.model, nnx.Param)
        jax.block_until_ready((loss, norm, jax.tree.leaves(trained)))
        return {"alignment_loss": float(loss)}

    return step


def load_model(directory: Path, remat: bool) -> nnx.Module:
    """Tunix's Llama with the weights of a directory of safetensors, in float32."""
    content = json.loads((directory / "config.json").read_text("utf-8"))
    rope = content.get("rope_theta") or content["rope_parameters"]["rope_theta"]
    if rope != 1_000_000:
        raise ValueError(f"the inputs have rope_theta {rope}; Tunix always uses 1,000,000")
    kind = llama.RematConfig.DECODER if remat else llama.RematConfig.NONE
    config = llama.ModelConfig(
        num_layers=content["num_hidden_layers"],
        vocab_size=content["vocab_size"],
        embed_dim=content["hidden_size"],
        hidden_dim=content["intermediate_size"],
        num_heads=content["num_attention_heads"],
        head_dim=content["head_dim"],
        num_kv_heads=content["num_key_value_heads"],
        rope_theta=1_000_000,
        norm_eps=content["rms_norm_eps"],
        weight_tying=content["tie_word_embeddings"],
        remat_config=kind,
    )
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
    return create_model_from_safe_tensors(str(directory), config, mesh, dtype=jnp.float32)


def adapted(base: nnx.Module, adapters: Path) -> nnx.Module:
    """The base with qwix's LoRA on all seven projections, and the given adapters in it."""
    provider = qwix.LoraProvider(module_path=".*_proj", rank=16, alpha=32.0)
    model = qwix.apply_lora_to_model(base, provider, rngs=nnx.Rngs(0), **base.get_model_input())
    matched = 0
    for name, tensor in load_file(adapters / "adapter_model.safetensors").items():
        # base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight, [rank, in] or [out, rank]
        parts = name.split("layers.")[1].split(".")
        layer = model.layers[int(parts[0])]
        module = getattr(layer.attn if parts[1] == "self_attn" else layer.mlp, parts[2])
        weight = "w" if parts[1] == "self_attn" else "kernel"
        parameter = getattr(module, f"{weight}_{parts[3].lower()}")
        parameter.value = jnp.asarray(tensor.T.reshape(parameter.value.shape), jnp.float32)
        matched += 1
    present = len(jax.tree.leaves(nnx.state(model, nnx.LoRAParam)))
    if matched != present:
        raise ValueError(f"{matched} adapter matrices were given, but qwix made {present}")
    return model


def matrices(params: nnx.State) -> nnx.State:
    """Which leaves are decayed: all but the norms."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


if __name__ == "__main__":
    serve(prepare)
