"""Prints docs/models.md, the families that can be loaded, from their tables.

python docs/models.py > docs/models.md
"""

from emergent_alignment.models.families import FAMILIES
from emergent_alignment.models.family import Family

PAGE = """# Models

The families that `model.path` may name, from the tables in `emergent_alignment/models/families`, a
file each. `python docs/models.py > docs/models.md` writes this page, and a test holds it to them.

{support}

Every family trains in full or with adapters, on any mesh, shares its prompts between branches,
decodes from a cache, and is exported to safetensors and to PEFT's form. MXFP4 is undone as it is
read, into the dtype of the parameters, and exports are not quantised. Of prompts and of answers the
cache holds, in layers with a window, the window. Adapters beside
experts are exported merged into the whole model.

A GGUF file is read as llama.cpp writes it, under the name of the architecture that stands here.
What its metadata does not say is what llama.cpp assumes of that name: which layers of Gemma,
gpt-oss and SmolLM3 have windows or no rotary positions, how the queries of Gemma are scaled, and
whether the weights of chosen experts are made to add up to 1 (Qwen3: yes, OLMoE: no).

{computation}

Layers whose windows or rotary positions differ come in periods, and the program has one layer for
each of a period, whatever the depth. Where a checkpoint has images as well, its text alone is read,
and exports hold no others. What a config.json asks for beyond this table is refused by name, with
what is supported. tests/parity holds logits, gradients, cached decoding and exports of each family
to those of transformers.

Sinks are one more logit of each head in the softmax of attention, with no value. splash attention
has them; where cuDNN would attend, two blocks do.

Experts meet the tokens that chose them in one grouped matmul, and the router computes in float32. A
mesh cuts each expert as it cuts an MLP, and `mesh.expert` cuts a layer's experts over devices: each
then holds, trains and multiplies some of them for the tokens of all devices of its group, whatever
the router chooses, and no expert is gathered; rows, and whatever is no expert's, are cut as
`mesh.fsdp` cuts them. A step sends each layer's tokens there and back instead, and holds as many
times a shard's tokens as the axis has devices: cut by 4 or 8, and leave the rest to `mesh.fsdp`.
While answers are decoded experts stay so. The log says how evenly they are loaded: `load_balance`
(experts_per_token where all are alike; the mean over the layers, where transformers counts all
layers together), `router_max_load` (the tokens of the most loaded expert of any layer over an even
share) and `router_unused` (the share that no token chose).
`loss.load_balance_weight` makes the first a term of the loss, in every application but PPO and
GRPO; adapters leave the router itself as it is.

`models/forward.py: activations(config, params, tokens, positions, plan, capture=, add=)` is the
forward pass with its residual stream open: what it was after some layers, and what is added to it
after each of them.

A new family is one file: its parameters, each with its names in files, and how its config.json and
llama.cpp's metadata state what sets it apart.
"""


def support(family: Family) -> dict[str, str]:
    """What can be done with models of a family."""
    kernels = [row for row in family.parameters if row.path[-1] == "kernel"]
    return {
        "models": family.sizes,
        "model_type": ", ".join([family.model_type, *(f"text of {x}" for x in family.wrappers)]),
        "safetensors": listed(["yes", *family.quantised]),
        "GGUF": ", ".join(f"`{form.architecture}`" for form in family.gguf) or "no",
        "adapters beside": listed([row.path[1] for row in kernels if row.adapted]),
        "kernels in 8 bits or 4": listed([row.path[1] for row in kernels if row.quantisable]),
    }


def computation(family: Family) -> dict[str, str]:
    """What sets its computation apart."""
    names = {row.path[-1] for row in family.parameters}
    leaves = {row.path[1] for row in family.parameters if row.stacked}
    before, behind = "attention_norm" in names, "attention_output_norm" in names
    heads = [row for row in family.parameters if row.path[-1] == "query_norm"]
    of_each = bool(heads) and heads[0].dimensions[0].size == "head_dim"
    stated = family.stated
    scalars = [name for name in stated if name.endswith(("_scale", "_divisor", "_cap", "_growth"))]
    return {
        "model_type": family.model_type,
        "norms": " and ".join(["before"] * before + ["behind"] * behind),
        "weight": "1 + w" if family.norm_offset else "w",
        "of queries and keys": ("each head" if of_each else "all heads") if heads else "none",
        "windows": stated["layer_windows"].says if "layer_windows" in stated else "none",
        "rotary": stated["rotary_layers"].says if "rotary_layers" in stated else "all layers",
        "rope of windowed layers": "their own" if "windowed_rope" in stated else "the same",
        "scalars": listed([name.replace("_", " ") for name in scalars]),
        "gate": family.activation.replace("_", " "),
        "sinks": "one a head" if "sinks" in leaves else "none",
        "experts": "chosen by a router" if "router" in leaves else "one MLP",
    }


def listed(names: list[str]) -> str:
    """Names with commas between them."""
    return ", ".join(names) or "none"


def table(rows: list[dict[str, str]]) -> str:
    """Rows of the same keys as Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page() -> str:
    """The whole page."""
    tables = {
        "support": table([support(family) for family in FAMILIES.values()]),
        "computation": table([computation(family) for family in FAMILIES.values()]),
    }
    return PAGE.format(**tables)


if __name__ == "__main__":
    print(page(), end="")
