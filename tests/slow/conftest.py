"""Here programs are compiled as users compile them, by processes of their own; what one process
has compiled, the next ones read."""

import compilation
import pytest

compilation.compile_as_users_do()


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
        yield
