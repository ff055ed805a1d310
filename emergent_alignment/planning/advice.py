"""Which setting to change first where a run does not fit."""

from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.placement import cuts_evenly, gathered_bytes
from emergent_alignment.parallel.mesh import decode_tensors
from emergent_alignment.planning.plan import Plan, ProgramPlan


def first_change(plan: Plan) -> str:
    """One setting, with its new value, for the program that needs most: what is held is cut or
    held in less where it is the larger part, else what the program makes while it runs."""
    largest = max(plan.programs, key=lambda program: program.memory.total)
    held = sum(largest.memory.held.values())
    if held > largest.memory.total / 2:
        return _hold_less(plan)
    if largest.name == "training step":
        return _make_less(plan)
    name = "conscience" if largest.name == "review" else "training"
    return f"config.{name}.batch_size={max(plan.settings[f'{name}.batch_size'] // 2, 1)}"


def _hold_less(plan: Plan) -> str:
    settings, mesh = plan.settings, plan.mesh
    if mesh["data"] > 1:
        return f"config.mesh.data=1 and config.mesh.fsdp={mesh['data'] * mesh['fsdp']}"
    if settings["frozen_dtype"] == "float32":
        return "config.model.frozen_dtype=bfloat16"
    if not settings["lora.rank"] and settings["moment_dtype"] == "float32":
        return "config.optimizer.moment_dtype=bfloat16"
    if not settings["lora.rank"]:
        return "config.lora.rank=16"
    if settings["frozen_dtype"] in ("bfloat16", "float16"):
        return "config.model.frozen_dtype=int8"
    if settings["frozen_dtype"] == "int8":
        return "config.model.frozen_dtype=nf4"
    return "a topology of more chips"


def _make_less(plan: Plan) -> str:
    settings, mesh = plan.settings, plan.mesh
    if settings["remat"] != "full":
        return "config.training.remat=full"
    rows = settings["training.batch_size"] // (mesh["data"] * mesh["fsdp"] * mesh["expert"])
    if rows > settings["accumulation"]:
        return f"config.training.accumulation={2 * settings['accumulation']}"
    if settings["dtype"] == "float32":
        return "config.model.dtype=bfloat16"
    return "config.data.max_prompt_tokens and max_response_tokens, or a larger config.mesh.tensor"


def decode_words(plan: Plan, model: ModelConfig) -> str:
    """On which mesh answers are decoded, why, and what the others that divide the model would hold
    and read for a token: nearly all that a token takes, where few rows share it."""
    chip, wanted = plan.target.chip, plan.decode_tensor
    said = []
    for tensor in decode_tensors(plan.mesh):
        size = gathered_bytes(model, plan.settings["dtype"], plan.mesh["expert"]) / tensor
        words = f"tensor={tensor}: {size / 2**30:.2f} GiB of parameters a chip"
        if chip.hbm_bandwidth is not None:
            words += f", {1e3 * size / chip.hbm_bandwidth:.2g} ms of reading a token"
        if not cuts_evenly(model, tensor):
            words = f"tensor={tensor} does not divide the heads"
        elif size > chip.hbm_bytes - sum(plan.programs[0].memory.held.values()):
            words += ", does not fit"
        said.append(words + (" (planned)" if tensor == wanted else ""))
    return f"config.mesh.decode: {'; '.join(said)}"


def verdict(plan: Plan) -> str:
    """Fits or not, by how much, and what to change first."""
    largest: ProgramPlan = max(plan.programs, key=lambda program: program.memory.total)
    size = f"{abs(plan.headroom) / 2**30:.2f} GiB"
    if plan.fits:
        return f"fits: {size} a chip to spare in the {largest.name}, which needs most"
    return (
        f"does not fit: the {largest.name} needs {size} a chip more than there is; change first: "
        f"{first_change(plan)}"
    )
