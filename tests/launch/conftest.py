import signal

import pytest
from fake_commands import Fakes


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """Scripts can be interrupted also where the tests run in the background: what a shell starts
    with & ignores SIGINT, so do its children, and bash cannot trap what was ignored before it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def fakes(tmp_path) -> Fakes:
    return Fakes(tmp_path)
