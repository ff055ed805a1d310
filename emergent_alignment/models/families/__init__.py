"""The families of models that can be loaded, a file each: whatever module is here is one."""

import importlib
import pkgutil

from emergent_alignment.models.architecture import Architecture
from emergent_alignment.models.family import Family


def _tables() -> dict[str, Family]:
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    families = [importlib.import_module(f"{__name__}.{name}").FAMILY for name in modules]
    return {family.model_type: family for family in families}


FAMILIES = _tables()
WRAPPERS = tuple(dict.fromkeys(name for each in FAMILIES.values() for name in each.wrappers))


def family_of(config: Architecture) -> Family:
    """The table of a model's family."""
    return FAMILIES[config.family]
