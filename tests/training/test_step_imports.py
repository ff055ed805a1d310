"""The training step can be read, and imported, without what loads, writes or words anything."""

import subprocess
import sys

FOREIGN = (
    "models.loading models.model models.export models.gguf_file models.tokenizer data.scenarios "
    "data.sources data.chat generation conscience runs applications"
).split()


def test_importing_the_step_brings_what_it_computes_with_alone():
    script = (
        "import sys, emergent_alignment.training.step;"
        "print(*[m for m in sys.modules if m.startswith('emergent_alignment.')]);"
        "print(*[m for m in ('transformers', 'datasets', 'orbax', 'safetensors')"
        " if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    ours, frameworks = ran.stdout.split("\n")[:2]
    assert not frameworks
    modules = [name.removeprefix("emergent_alignment.") for name in ours.split()]
    brought = [name for name in modules if name.startswith(tuple(FOREIGN))]
    assert not brought, f"importing the step imports {brought}"
    tables = [name for name in modules if name.startswith("models.families")]  # one a family
    assert len(modules) - len(tables) <= 36, modules
