"""`--config FILE` and `--config.section.field=value`, in the ml-collections way."""

import difflib
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

import emergent_alignment.config
from emergent_alignment.config import default_config
from emergent_alignment.errors import UserError

HELP = """\
settings:
  --config FILE                    a Python file with get_config() (default: the defaults)
  --config.SECTION.FIELD=VALUE     change one field, as often as you like
  Sections and fields, with their defaults: emergent_alignment/config.py
"""


def read_config(words: list[str]) -> ConfigDict:
    """The config that command-line words name. Raises UserError for a file that cannot be read,
    an unknown field (with the nearest name) or a value of another type."""
    words = list(words)
    if not any(word == "--config" or word.startswith("--config=") for word in words):
        words.insert(0, f"--config={emergent_alignment.config.__file__}")
    _check_file(words)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=["", *words])
    try:
        rest = values(["", *words])[1:]
        config = values["config"].value
    except (AttributeError, KeyError) as error:
        lines = str(error.args[0]).splitlines()
        raise UserError(f"--config: there is no field {'; '.join(lines)}") from None
    except (flags.Error, OSError, TypeError, ValueError) as error:
        raise UserError(f"--config: {' '.join(str(error).split())}") from None
    if rest:
        raise UserError(f"unrecognized arguments: {' '.join(rest)}")
    _check_fields(config, default_config())
    return config


def _check_file(words: list[str]) -> None:
    for place, word in enumerate(words):
        name = None
        if word.startswith("--config="):
            name = word.removeprefix("--config=")
        elif word == "--config" and place + 1 < len(words):
            name = words[place + 1]
        if name is not None and not Path(name.partition(":")[0]).is_file():
            raise UserError(f"--config: {name}: no such file; see the folder configs/")


def _check_fields(config: ConfigDict, known: ConfigDict, prefix: str = "config") -> None:
    for name, value in config.items():
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
            raise UserError(f"{prefix}.{name}: there is no such field{hint}")
        if isinstance(known[name], ConfigDict):
            _check_fields(value, known[name], f"{prefix}.{name}")
    missing = [name for name in known if name not in config]
    if missing:
        raise UserError(f"{prefix}.{missing[0]} is missing; start from default_config()")
