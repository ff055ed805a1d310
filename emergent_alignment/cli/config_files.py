"""Config files are written with ml-collections: the defaults as a ConfigDict, and back."""

from ml_collections import ConfigDict

from emergent_alignment.config import Config
from emergent_alignment.settings import as_dict, from_dict


def default_config() -> ConfigDict:
    """All fields with their defaults, locked: a name that is none is an error."""
    return as_config_dict(Config())


def as_config_dict(config: Config) -> ConfigDict:
    """A mutable copy of the settings, locked."""
    copied = ConfigDict(as_dict(config))
    copied.lock()
    return copied


def typed(config: ConfigDict) -> Config:
    """The settings of a ConfigDict, frozen. Raises UserError for an unknown field (with the
    nearest name) or a value of another type."""
    return from_dict(Config, config.to_dict())
