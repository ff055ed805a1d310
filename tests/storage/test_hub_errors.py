"""Whatever keeps the hub away is one line: the true cause, and what to do."""

import errno

import datasets
import huggingface_hub
import pytest
import requests
from huggingface_hub import errors

from emergent_alignment.data.sources import load_examples
from emergent_alignment.errors import Unreachable, UserError
from emergent_alignment.models.loading import resolve


class Response:
    """As much of an answer as the errors look at."""

    headers = {}
    request = None

    def __init__(self, status):
        self.status_code = status


def caused_by(cause):
    """An error of a library on top of another's, as huggingface_hub and datasets raise it."""
    try:
        try:
            raise cause
        except BaseException as error:
            raise errors.LocalEntryNotFoundError("not in the cache\nnor elsewhere") from error
    except errors.LocalEntryNotFoundError as error:
        return error


def status(number):
    return errors.HfHubHTTPError("no", response=Response(number))


SOCKS = ImportError("Using SOCKS proxy, but the 'socksio' package is not installed.")
CAUSES = {
    "socks, httpx": (SOCKS, "SOCKS.*pip install socksio"),
    "socks, requests": (
        requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support."),
        "SOCKS.*pip install socksio",
    ),
    "a proxy of another kind": (ValueError("Unknown scheme for proxy URL 'ftp://x'"), "correct it"),
    "a proxy that is away": (requests.exceptions.ProxyError("refused"), "does not answer"),
    "offline": (errors.OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE is set.*unset it"),
    "401": (status(401), "hf auth login"),
    "403": (status(403), "ask for access"),
    "429": (status(429), "too many requests"),
    "503": (status(503), "try again later"),
    "read-only": (OSError(errno.EROFS, "no", "/home/me/.cache"), "/home/me/.cache: .*set HF_HOME"),
    "forbidden": (PermissionError(errno.EACCES, "no", "/root/x"), "/root/x: .*set HF_HOME"),
    "a file's": (OSError(errno.ENOTDIR, "no", "/dev/null/x"), "/dev/null/x: .*set HF_HOME"),
    "taken": (FileExistsError(errno.EEXIST, "no", "/a/hub"), "/a/hub: .*set HF_HOME"),
    "full": (OSError(errno.ENOSPC, "no"), "No space left.*set HF_HOME"),
    "nobody": (ConnectionRefusedError(111, "refused"), "refused|not in the cache"),
    "anything": (RuntimeError("what\nnot"), "what not|not in the cache"),
}


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", CAUSES)
def test_a_models_download_says_the_cause(monkeypatch, name, deep):
    error, said = CAUSES[name]
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def download(*_, **__):
        raise caused_by(error) if deep else error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(UserError, match=f"owner/model: .*cannot be downloaded: .*({said})") as told:
        resolve("owner/model")
    assert "\n" not in str(told.value)
    passes = name in ("429", "503", "nobody") or (deep and name == "anything")
    assert isinstance(told.value, Unreachable) == passes, "only what passes is worth another try"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        *CAUSES.values(),
        (RuntimeError("Dataset scripts are no longer supported, but found x.py"), "save its rows"),
        (ValueError('Unknown split "test". Should be one of [train].'), "train_split"),
        (datasets.exceptions.DatasetNotFoundError("Dataset 'x/y' doesn't exist"), "correct the na"),
        (datasets.exceptions.DatasetGenerationError("An error occurred"), "correct the name"),
    ],
)
def test_a_data_set_says_the_cause(monkeypatch, error, said):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def load(**_):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError, match=rf"owner/rows \(split train\): .*({said})") as told:
        load_examples("owner/rows", split="train")
    assert "\n" not in str(told.value)


def test_a_proxy_that_needs_more_is_said_where_it_is_met(monkeypatch):
    """Through the real HTTP client, which finds out when it is made."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "socksio", None)
    huggingface_hub.close_session()
    try:
        with pytest.raises(UserError, match="SOCKS.*pip install socksio"):
            resolve("owner/model-that-nobody-has")
    finally:
        huggingface_hub.close_session()
