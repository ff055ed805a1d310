"""A page is made from files: it needs no model, no sampler and no array library."""

import json
import subprocess
import sys
from pathlib import Path

import emergent_alignment.reports

# What a report may know of our own package: how values and files are kept, what was measured, and
# the names under which it was kept.
MAY_IMPORT = (
    "errors",
    "intervals",
    "storage",
    "evaluation",
    "reports",
    "data.messages",
    "data.reasoning",
    "data.scenarios",
    "data.tools",
    "conscience.diagnosis",
    "conscience.journal",
    "conscience.outcomes",
    "self_align.work_directory",
)
MAY_NOT_IMPORT = ("jax", "flax", "optax", "orbax", "transformers", "datasets", "ml_collections")
WALK = """
import importlib, json, sys
pulled = {}
for module in sys.argv[1:]:
    before = set(sys.modules)
    importlib.import_module(module)
    pulled[module] = sorted(set(sys.modules) - before)
print(json.dumps(pulled))
"""


def test_no_report_reaches_a_model_a_sampler_or_jax():
    folder = Path(emergent_alignment.reports.__file__).parent
    reports = [f"emergent_alignment.reports.{path.stem}" for path in sorted(folder.glob("*.py"))]
    reports = [name.removesuffix(".__init__") for name in reports]
    found = subprocess.run(
        [sys.executable, "-c", WALK, *reports], capture_output=True, text=True, check=True
    )
    wrong = [
        f"{report} pulls {module}"
        for report, modules in json.loads(found.stdout).items()
        for module in modules
        if not may_be_pulled(module)
    ]
    assert not wrong, "\n".join(wrong)


def may_be_pulled(module: str) -> bool:
    """Whether a report may import it, itself or through others."""
    top, _, inner = module.partition(".")
    if top != "emergent_alignment":
        return top not in MAY_NOT_IMPORT
    packages = any(name.startswith(f"{inner}.") for name in MAY_IMPORT)  # such as `conscience`
    return not inner or packages or any(f"{inner}.".startswith(f"{name}.") for name in MAY_IMPORT)


def test_the_report_command_starts_without_them(results_folder):
    code = (
        "import sys; from emergent_alignment.cli.main import main\n"
        "code = main(['report', sys.argv[1]])\n"
        "print('pulled:', *(name for name in sys.argv[2:] if name in sys.modules))\n"
        "sys.exit(code)"
    )
    pulled = tuple(name for name in MAY_NOT_IMPORT if name != "ml_collections")  # flags and configs
    words = [sys.executable, "-c", code, str(results_folder), *pulled]
    found = subprocess.run(words, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "pulled:"
    assert (results_folder / "report.html").is_file()
