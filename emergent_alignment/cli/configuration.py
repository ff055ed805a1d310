"""`--config FILE` and `--config.section.field=value`, in the ml-collections way."""

import re
import runpy
import traceback
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict, config_flags

from emergent_alignment.cli.bundled import bundled_config, bundled_folder
from emergent_alignment.errors import UserError
from emergent_alignment.settings import check_settings, unknown_field, words_by_field
from emergent_alignment.storage.files import is_file

if TYPE_CHECKING:
    from emergent_alignment.config import Config

HELP = """\
settings:
  --config NAME|FILE               a bundled config, or a Python file with get_config()
  --config.SECTION.FIELD=VALUE     change one field, as often as you like
  Bundled configs: emergent-alignment config --list
  Sections and fields, with defaults and ranges: emergent-alignment config [SECTION]
"""


def joined_config_words(words: list[str]) -> list[str]:
    """`--config FILE` as the one word `--config=FILE`: no positional argument takes FILE then."""
    words, joined = list(words), []
    while words:
        word = words.pop(0)
        if word == "--config" and words and not words[0].startswith("-"):
            word = f"--config={words.pop(0)}"
        joined.append(word)
    return joined


def read_config(words: list[str]) -> "Config":
    """The config that command-line words name, checked. Raises UserError for a file that cannot be
    read, an unknown field (with the nearest name), a value of another type, or one that cannot be
    meant."""
    from emergent_alignment.cli.config_files import default_config

    words = joined_config_words(words)
    files = [word.removeprefix("--config=") for word in words if word.startswith("--config=")]
    changes = [word for word in words if not word.startswith("--config=")]
    if len(files) > 1 or "--config" in changes:
        raise UserError("--config: name one file, or one config, as in --config smollm2_135m")
    config = _from_file(files[0]) if files else default_config()
    _check_fields(config, default_config())
    return _checked(config, changes)


def with_changes(config: "Config", changes: list[str]) -> "Config":
    """The config with `--config.section.field=value` words carried out on it, checked. Raises
    UserError for a word that is none, an unknown field (with the nearest name), a value of another
    type, or one that cannot be meant."""
    from emergent_alignment.cli.config_files import as_config_dict

    return _checked(as_config_dict(config), changes)


def _checked(config: ConfigDict, changes: list[str]) -> "Config":
    from emergent_alignment.cli.config_files import typed

    config_given = typed(_changed(config, changes) if changes else config)
    check_settings(config_given)
    return config_given


def _changed(config: ConfigDict, changes: list[str]) -> ConfigDict:
    for word in changes:
        if word.startswith("--config."):
            _check_name(word.removeprefix("--config.").partition("=")[0], config)
    changes = [_literal(word) for word in changes]
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=["", *changes]
        )
        rest = values(["", *changes])[1:]
    except Exception as error:  # ml-collections reads words as Python, which may fail in any way
        raise UserError(f"--config: {_in_one_line(error)[:400]}") from None
    if rest:
        raise UserError(f"unrecognized arguments: {' '.join(rest)}")
    return values["config"].value


def _literal(word: str) -> str:
    """A word of a field that is a number or a word, as Python writes it."""
    from emergent_alignment.config import Config

    name, _, value = word.partition("=")
    words = words_by_field(Config).get(name.removeprefix("--config."), ())
    return f"{name}={value!r}" if value in words else word


def _from_file(name: str) -> ConfigDict:
    """What get_config() of a file, or of a bundled config, returns; get_config(argument) where the
    name is FILE:argument."""
    path, _, argument = name.partition(":")
    if not is_file(path):
        path = str(bundled_config(path))
    try:
        get_config = runpy.run_path(path).get("get_config")
        if get_config is None:
            examples = bundled_folder("configs")
            raise UserError(f"{path}: there is no get_config() in it; see the files of {examples}")
        config = get_config(*([argument] if argument else []))
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code, which may raise anything
        raise UserError(_in_the_file(path, error)) from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config() must return a config; start from default_config()")
    return config


def _in_the_file(path: str, error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    own = error.lineno if isinstance(error, SyntaxError) else None
    line = own or (lines[-1] if lines else 1)
    return f"{path}:{line}: {type(error).__name__}: {_in_one_line(error)}"


def _in_one_line(error: object) -> str:
    """ml-collections names all other fields with their values, too; that is left out."""
    try:
        text = str(error)
    except Exception:  # an exception of the user's own
        text = ""
    text = re.sub(r"Other fields present: .*?(?=Did you mean|$)", "", text, flags=re.DOTALL)
    return " ".join(text.replace("\\n", " ").split())


def _check_name(name: str, known: ConfigDict) -> None:
    prefix = "config"
    for part in name.split("."):
        if not isinstance(known, ConfigDict):
            raise UserError(f"{prefix}.{part}: there is no such field; {prefix} is a field itself")
        if part not in known:
            raise UserError(unknown_field(f"{prefix}.{part}", list(known)))
        prefix, known = f"{prefix}.{part}", known[part]


def _check_fields(config: ConfigDict, known: ConfigDict, prefix: str = "config") -> None:
    for name, value in config.items():
        if name not in known:
            raise UserError(unknown_field(f"{prefix}.{name}", list(known)))
        if isinstance(known[name], ConfigDict) != isinstance(value, ConfigDict):
            raise UserError(
                f"{prefix}.{name}: a section stands for a field, or the other way round"
            )
        if isinstance(known[name], ConfigDict):
            _check_fields(value, known[name], f"{prefix}.{name}")
    missing = [name for name in known if name not in config]
    if missing:
        raise UserError(f"{prefix}.{missing[0]} is missing; start from default_config()")
