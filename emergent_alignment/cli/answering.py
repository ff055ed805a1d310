"""Command-line words of what answers without training: `respond` and `chat`."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from emergent_alignment.errors import UserError
from emergent_alignment.settings import changed

if TYPE_CHECKING:
    from emergent_alignment.config import Config


def add_answering_arguments(parser: ArgumentParser) -> None:
    """Declare who answers, and how."""
    add_answerer_arguments(parser)
    parser.add_argument(
        "--max-new-tokens", type=int, default=256, help="of a draft, and of a correction"
    )
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--seed", type=int, default=0)


def add_answerer_arguments(parser: ArgumentParser) -> None:
    """Declare who answers."""
    parser.add_argument("--run", type=Path, dest="workdir", help="a run's work directory")
    parser.add_argument("--endpoint", metavar="URL", help="an OpenAI-compatible endpoint")


# What these commands take from an argument, and not from the config.
ARGUMENTS = {
    "--config.sampling.max_new_tokens": "--max-new-tokens",
    "--config.sampling.temperature": "--temperature",
    "--config.seed": "--seed",
}


def apply_answering(arguments: Namespace, config: "Config", rest: list[str]) -> "Config":
    """The config with --endpoint. Raises UserError for numbers that cannot be meant, and for
    a flag among `rest` that an argument replaces."""
    for word in rest:
        flag = word.partition("=")[0]
        if flag in ARGUMENTS:
            raise UserError(f"{flag}: not read here; say {ARGUMENTS[flag]} instead")
    if arguments.max_new_tokens < 1 or arguments.temperature < 0:
        raise UserError("--max-new-tokens must be at least 1, and --temperature 0 or more")
    return with_endpoint(arguments, config)


def with_endpoint(arguments: Namespace, config: "Config") -> "Config":
    """The config with the address that --endpoint gives, where it gives one."""
    address = arguments.endpoint
    return changed(config, {"endpoint.base_url": address}) if address else config
