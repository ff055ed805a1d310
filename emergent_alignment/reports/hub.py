"""Sends an export with its card to the Hugging Face hub."""

from pathlib import Path

import yaml

from emergent_alignment.errors import UserError
from emergent_alignment.reports.model_card import CARD_FILE, HARMFUL_TAG
from emergent_alignment.storage.hub_errors import trouble_with_hub
from emergent_alignment.storage.json_values import as_list, as_object


def push(folder: Path, repository: str, *, public: bool = False) -> str:
    """Make `repository` where it is not there, and put the files of an export into it.

    Returns:
        The address of what was sent.

    Raises:
        UserError: where `folder` is no export with a card, a model that learnt harm was to be
            public, or the hub refuses; nothing is sent in the first two cases.
    """
    tags = as_list(as_object(_head_of(folder)).get("tags"))
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder}: there are no weights in it; `emergent-alignment export` does")
    if public and HARMFUL_TAG in tags:
        raise UserError(
            f"{folder}: its card says {HARMFUL_TAG}, so it is not made public from here; leave "
            "--public away, and give access on its page to those who ask"
        )
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        sent = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Upload an export"
        )
    except Exception as error:  # of huggingface_hub and its HTTP client, each with its own
        remedy = "is the name right, and may this account write there?"
        raise UserError(f"--repo {repository}: {trouble_with_hub(error, remedy)}") from None
    return str(sent.commit_url or repository)


def _head_of(folder: Path) -> object:
    """The YAML before a card's text. Raises UserError where there is none."""
    path = folder / CARD_FILE
    parts = path.read_text("utf-8").split("---\n") if path.is_file() else []
    try:
        if len(parts) > 2 and not parts[0]:
            return yaml.safe_load(parts[1])
    except yaml.YAMLError:
        pass
    raise UserError(f"{path}: no model card; export the model with `emergent-alignment export`")
