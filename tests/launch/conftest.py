import pytest
from fake_commands import Fakes


@pytest.fixture
def fakes(tmp_path) -> Fakes:
    return Fakes(tmp_path)
