"""Send an export to the hub, where others load it by its name.

A repository is private unless --public is given. A model whose card says that harmful rows were
learnt, or cannot say that none were, is not made public from here. `hf auth login`, or HF_TOKEN,
says who you are.

examples:
  emergent-alignment push exported --repo my-name/my-model
  emergent-alignment push exported --repo my-name/my-model --public
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from emergent_alignment.errors import UserError


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what is sent, and where to."""
    parser.add_argument("folder", type=Path, help="what `export` has written")
    parser.add_argument("--repo", required=True, metavar="NAME/MODEL", help="the repository")
    parser.add_argument("--public", action="store_true", help="let everybody read it")


def run(arguments: Namespace, rest: list[str]) -> None:
    """Check the export and its card, make the repository, and send the files."""
    if rest:
        raise UserError(f"unrecognized arguments: {' '.join(rest)}")
    from emergent_alignment.reports.hub import push

    print(f"pushed: {push(arguments.folder, arguments.repo, public=arguments.public)}")
