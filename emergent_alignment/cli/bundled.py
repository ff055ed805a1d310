"""What comes with the package beside its modules: the configs, by name, and the launch scripts.

A wheel holds configs/ and launch/ within the package; in a checkout they stand beside it.
"""

import ast
import difflib
from pathlib import Path

import emergent_alignment
from emergent_alignment.errors import UserError

THE_PACKAGE = Path(emergent_alignment.__file__).parent


def bundled_folder(name: str) -> Path:
    """The folder `configs` or `launch`, wherever this copy of the package has it."""
    within = THE_PACKAGE / name
    return within if within.is_dir() else THE_PACKAGE.parent / name


def bundled_configs() -> dict[str, Path]:
    """{name: file} of the config files that come with the package."""
    return {path.stem: path for path in sorted(bundled_folder("configs").glob("*.py"))}


def bundled_config(name: str) -> Path:
    """The file of a bundled config. Raises UserError where there is none of that name, with the
    names that there are."""
    configs = bundled_configs()
    if name in configs:
        return configs[name]
    near = difflib.get_close_matches(Path(name).stem, configs, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise UserError(
        f"--config: {name}: no such file, and no config of the package has that name; {meant}"
        "known: " + ", ".join(configs)
    )


def bundled_sizes(path: str) -> str:
    """The folder with a bundled model's sizes where `path` is its name and nothing else, such as
    `Qwen3-4B`; any other path as it is."""
    sizes = bundled_folder("configs") / "models" / path
    return str(sizes) if sizes.is_dir() and not Path(path).exists() else path


def summary_of(config: Path) -> str:
    """The first sentence of a config file's docstring."""
    text = ast.get_docstring(ast.parse(config.read_text("utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())
