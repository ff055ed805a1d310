"""Config files are written with ml-collections: the defaults as a ConfigDict, and back."""

from ml_collections import ConfigDict, FieldReference

from emergent_alignment.config import Config
from emergent_alignment.settings import as_dict, from_dict, words_by_field


def default_config() -> ConfigDict:
    """All fields with their defaults, locked: a name that is none is an error."""
    return as_config_dict(Config())


def as_config_dict(config: Config) -> ConfigDict:
    """A mutable copy of the settings, locked. A field that is a number or a word takes both."""
    copied = ConfigDict(as_dict(config))
    for name in words_by_field(Config):
        section, _, field = name.rpartition(".")
        within = copied
        for part in section.split("."):
            within = within[part]
        value = within[field]
        del within[field]
        within[field] = FieldReference(value, field_type=object)
    copied.lock()
    return copied


def typed(config: ConfigDict) -> Config:
    """The settings of a ConfigDict, frozen. Raises UserError for an unknown field (with the
    nearest name) or a value of another type."""
    return from_dict(Config, config.to_dict())
