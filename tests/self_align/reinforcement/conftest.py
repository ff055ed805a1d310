import pytest
from sharing_steps import steps_compiled_once


@pytest.fixture(scope="package", autouse=True)
def shared_steps():
    with steps_compiled_once():
        yield
