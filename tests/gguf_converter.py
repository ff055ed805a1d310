"""A config.json and Hugging Face's tensors as a GGUF file, by the rules of llama.cpp's converter
(its conversion/: base, gemma, gpt_oss, granite, llama, mistral3, olmo, qwen, smollm), with the
names of the gguf package: nothing here is read off the tables of ours."""

import re

import gguf
import numpy as np
import transformers

ARCHITECTURES = {
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
    "gpt_oss": gguf.MODEL_ARCH.GPT_OSS,
    "granite": gguf.MODEL_ARCH.GRANITE,
    "granitemoehybrid": gguf.MODEL_ARCH.GRANITE,  # where all layers are attention
    "ministral3": gguf.MODEL_ARCH.MISTRAL3,
    "mistral": gguf.MODEL_ARCH.MISTRAL3,  # of a Mistral3ForConditionalGeneration
    "olmo2": gguf.MODEL_ARCH.OLMO2,
    "olmo3": gguf.MODEL_ARCH.OLMO2,
    "olmoe": gguf.MODEL_ARCH.OLMOE,
    "qwen3_moe": gguf.MODEL_ARCH.QWEN3MOE,
    "smollm3": gguf.MODEL_ARCH.SMOLLM3,
}
# LlamaModel and what inherits from it.
PERMUTED = ("granite", "granitemoehybrid", "ministral3", "mistral", "smollm3")
SHIFTED = ("gemma2", "gemma3_text")


SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 7,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": None,
}
YARN = {"rope_type": "yarn", "rope_theta": 3e5, "factor": 4.0}
YARN |= {"original_max_position_embeddings": 32, "beta_fast": 24.0, "beta_slow": 2.0}
# Of each family, what a file can say, and no default where it can say another thing.
SETTINGS = {
    "gemma2": {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 20}
    | {"attn_logit_softcapping": 40.0, "final_logit_softcapping": 20.0},
    "gemma3_text": {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 20}
    | {
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 3e5},
        }
    },
    "gpt_oss": {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2}
    | {"sliding_window": 20, "rope_parameters": {**YARN, "truncate": False}},
    "granite": {"embedding_multiplier": 12.0, "attention_multiplier": 0.0078125}
    | {"residual_multiplier": 0.22, "logits_scaling": 8.0},
    "granitemoehybrid": {"embedding_multiplier": 12.0, "attention_multiplier": 0.0078125}
    | {"residual_multiplier": 0.22, "logits_scaling": 8.0, "shared_intermediate_size": 64}
    | {"layer_types": ["attention"] * 7, "num_local_experts": 0, "mamba_n_heads": 4}
    | {"position_embedding_type": "rope"},
    "ministral3": {"head_dim": 16}
    | {
        "rope_parameters": {
            **YARN,
            "mscale": 1.0,
            "mscale_all_dim": 0.5,
            "llama_4_scaling_beta": 0.2,
        }
    },
    "mistral": {"head_dim": 16, "sliding_window": None},
    "olmo2": {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    "olmo3": {"sliding_window": 20, "rope_parameters": YARN | {"attention_factor": 1.25}},
    "olmoe": {"num_experts": 6, "num_experts_per_tok": 3, "norm_topk_prob": False},
    "qwen3_moe": {"head_dim": 16, "num_experts": 6, "num_experts_per_tok": 3}
    | {"moe_intermediate_size": 32, "norm_topk_prob": True},
    "smollm3": {"rope_parameters": {"rope_type": "default", "rope_theta": 2e6}},
}


def stated(family, **changes):
    """A tiny model's config.json, as transformers writes it."""
    return transformers.AutoConfig.for_model(
        family, **(SIZES | SETTINGS[family] | changes)
    ).to_dict()


def write_converted(path, stated, tensors, tokenizer, changes=None, kinds=None, others=None):
    """Write the file; returns its path.

    `changes` are other values of metadata, by full key, None leaving one out; `kinds` the types in
    which tensors are stored, by a part of their names; `others` tensors to store instead, or None.
    """
    family = stated["model_type"]
    architecture = gguf.MODEL_ARCH_NAMES[ARCHITECTURES[family]]
    writer = gguf.GGUFWriter(path, architecture)
    if family == "gemma2":
        _add_gemma2(writer, stated)
    else:
        _add_common(writer, stated)
        _OWN.get(family, lambda *_: None)(writer, stated)
    if family in PERMUTED:
        writer.add_vocab_size(stated["vocab_size"])
        writer.add_rope_dimension_count(_head_dim(stated))
    for key, value in tokenizer.items():
        group = "tokenizer" if key == "chat_template" else "tokenizer.ggml"
        _add(writer, f"{group}.{key}", value)
    for key, value in (changes or {}).items():
        for written in writer.kv_data:
            written.pop(key, None)
        if value is not None:
            _add(writer, key, value)
    for name, tensor in converted(stated, tensors):
        kind = next((kind for part, kind in (kinds or {}).items() if part in name), None)
        tensor = (others or {}).get(name, tensor)
        if tensor is None:
            continue
        tensor = np.ascontiguousarray(tensor, np.float32)
        if kind is None:
            writer.add_tensor(name, tensor)
        else:
            writer.add_tensor(name, gguf.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer, key, value):
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    kinds |= {str: writer.add_string, list: writer.add_array}
    kinds[type(value)](key, value)


def _head_dim(stated):
    return stated.get("head_dim") or stated["hidden_size"] // stated["num_attention_heads"]


def _add_common(writer, stated):
    """TextModel.set_gguf_parameters."""
    writer.add_context_length(stated["max_position_embeddings"])
    writer.add_embedding_length(stated["hidden_size"])
    writer.add_block_count(stated["num_hidden_layers"])
    writer.add_feed_forward_length(stated["intermediate_size"])
    writer.add_head_count(stated["num_attention_heads"])
    writer.add_head_count_kv(stated["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(stated["rms_norm_eps"])
    ropes = stated["rope_parameters"]
    rope = ropes.get("full_attention", ropes)
    kind = rope["rope_type"]
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for name, add in {
            "attention_factor": writer.add_rope_scaling_yarn_attn_factor,
            "beta_fast": writer.add_rope_scaling_yarn_beta_fast,
            "beta_slow": writer.add_rope_scaling_yarn_beta_slow,
        }.items():
            if rope.get(name) is not None:
                add(rope[name])
    writer.add_rope_freq_base(rope["rope_theta"])
    if "sliding_attention" in ropes:
        writer.add_rope_freq_base_swa(ropes["sliding_attention"]["rope_theta"])
    experts = stated.get("num_local_experts") or stated.get("num_experts")
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(stated["num_experts_per_tok"])
    if stated.get("head_dim") is not None and stated["model_type"] != "granite":
        writer.add_key_length(stated["head_dim"])
        writer.add_value_length(stated["head_dim"])


def _add_gemma2(writer, stated):
    """All there is: no base of the rope, and nothing of the scale of queries."""
    writer.add_context_length(stated["max_position_embeddings"])
    writer.add_embedding_length(stated["hidden_size"])
    writer.add_block_count(stated["num_hidden_layers"])
    writer.add_feed_forward_length(stated["intermediate_size"])
    writer.add_head_count(stated["num_attention_heads"])
    writer.add_head_count_kv(stated["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(stated["rms_norm_eps"])
    writer.add_key_length(stated["head_dim"])
    writer.add_value_length(stated["head_dim"])
    writer.add_attn_logit_softcapping(stated["attn_logit_softcapping"])
    writer.add_final_logit_softcapping(stated["final_logit_softcapping"])
    writer.add_sliding_window(stated["sliding_window"])


def _add_gemma3(writer, stated):
    writer.add_sliding_window(stated["sliding_window"])


def _add_olmo3(writer, stated):
    writer.add_sliding_window(stated["sliding_window"])
    kinds = stated["layer_types"]
    writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in kinds])


def _add_qwen3_moe(writer, stated):
    writer.add_expert_feed_forward_length(stated["moe_intermediate_size"])


def _add_gpt_oss(writer, stated):
    writer.add_sliding_window(stated["sliding_window"])
    writer.add_expert_feed_forward_length(stated["intermediate_size"])


def _add_granite(writer, stated):
    writer.add_attention_scale(stated["attention_multiplier"])
    writer.add_embedding_scale(stated["embedding_multiplier"])
    writer.add_residual_scale(stated["residual_multiplier"])
    writer.add_logit_scale(stated["logits_scaling"])


def _add_granite_hybrid(writer, stated):
    _add_granite(writer, stated)
    writer.add_expert_shared_feed_forward_length(stated["shared_intermediate_size"])
    writer.add_ssm_conv_kernel(stated["mamba_d_conv"])
    writer.add_ssm_state_size(stated["mamba_d_state"])
    writer.add_head_count_kv([stated["num_key_value_heads"]] * stated["num_hidden_layers"])
    writer.add_rope_scaling_finetuned(True)


def _add_ministral3(writer, stated):
    rope = stated["rope_parameters"]
    writer.add_rope_scaling_yarn_log_mul(rope["mscale_all_dim"])
    writer.add_attn_temperature_scale(rope["llama_4_scaling_beta"])


_OWN = {
    "gemma3_text": _add_gemma3,
    "gpt_oss": _add_gpt_oss,
    "granite": _add_granite,
    "granitemoehybrid": _add_granite_hybrid,
    "ministral3": _add_ministral3,
    "olmo3": _add_olmo3,
    "qwen3_moe": _add_qwen3_moe,
}


def converted(stated, tensors):
    """The name and content of each tensor of the file."""
    family = stated["model_type"]
    known = gguf.get_tensor_name_map(ARCHITECTURES[family], stated["num_hidden_layers"])
    for name, tensor in _split(_stacked(tensors)):
        if name == "lm_head.weight" and stated["tie_word_embeddings"]:
            continue
        if family in SHIFTED and name.endswith("norm.weight"):
            tensor = tensor + np.float32(1)
        if family in PERMUTED and re.search(r"[qk]_proj\.(weight|bias)$", name):
            keys = "k_proj" in name
            heads = stated["num_key_value_heads" if keys else "num_attention_heads"]
            # [heads, half, place in it] to [heads, place, half]
            halves = tensor.reshape(heads, 2, -1, *tensor.shape[1:])
            tensor = np.moveaxis(halves, 1, 2).reshape(tensor.shape)
        written = known.get_name(name, try_suffixes=(".weight", ".bias"))
        assert written is not None, name
        yield written, tensor


def _stacked(tensors):
    """Experts that have tensors of their own as one, the experts first."""
    kept, stacks = {}, {}
    for name, tensor in tensors.items():
        found = re.fullmatch(r"(.*\.experts\.)(\d+)\.(.*)", name)
        if found:
            stacks.setdefault(found[1] + found[3], {})[int(found[2])] = tensor
        else:
            kept[name] = tensor
    return kept | {name: np.stack([each[i] for i in sorted(each)]) for name, each in stacks.items()}


def _split(tensors):
    """gpt-oss: gate and up apart, and kernels [experts, out, in]; sinks are a weight. Granite 4:
    the first half of a tensor is the gate, the second what it gates."""
    for name, tensor in tensors.items():
        block, _, fused = name.partition("shared_mlp.")
        if fused == "input_linear.weight":
            half = len(tensor) // 2
            yield f"{block}mlp.gate_proj.weight", tensor[:half]
            yield f"{block}mlp.up_proj.weight", tensor[half:]
            continue
        name = name.replace("shared_mlp.output_linear", "mlp.down_proj")
        if name.endswith("sinks"):
            name += ".weight"
        bias = re.fullmatch(r"(.*\.experts\.(gate_up|down)_proj)(_bias)?", name)
        if not bias:
            yield name, tensor
            continue
        stem, end = bias[1], ".bias" if bias[3] else ".weight"
        tensor = tensor if bias[3] else tensor.swapaxes(1, 2)
        if bias[2] == "down":
            yield stem + end, tensor
            continue
        yield stem.replace("gate_up", "gate") + end, tensor[:, ::2]
        yield stem.replace("gate_up", "up") + end, tensor[:, 1::2]
