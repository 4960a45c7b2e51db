"""Settings every test shares: eight CPU devices, one compilation cache, shape checks on the public arrays."""

import logging
import os
import pathlib

# Before jax is imported anywhere.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import jaxtyping
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDENS = ROOT / "tests" / "goldens"
FLAGS = os.environ["XLA_FLAGS"]

jax.config.update(
    "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="session")
def same_flags():
    """Start the devices with the flags above, before a command called in this process adds its own for good.

    Otherwise the processes that a test starts would round differently from this one.
    """
    jax.devices()


@pytest.fixture(autouse=True)
def same_settings():
    """Undo what a command called in this process sets for its whole process: XLA's flags and the log.

    The log's handler holds the stderr of its test, which is closed when the next test writes to it.
    """
    # A fixture of a module may have called a command before.
    os.environ["XLA_FLAGS"] = FLAGS
    handlers, level = list(logging.root.handlers), logging.getLogger("motion_jax").level
    yield
    os.environ["XLA_FLAGS"] = FLAGS
    logging.getLogger("motion_jax").setLevel(level)
    for handler in logging.root.handlers[:]:
        if type(handler) is logging.StreamHandler and handler not in handlers:
            logging.root.removeHandler(handler)


@pytest.fixture
def goldens() -> pathlib.Path:
    """The folder of measured reference values."""
    return GOLDENS


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded NumPy generator, new for each test."""
    return np.random.default_rng(0)


@pytest.fixture
def x64():
    """Run the test with float64 enabled."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def annotations_off():
    """Leave shapes and dtypes to the function's own checks; the tests switch on those of the annotations."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Real clips kept beside the checkout; tests that need them skip where they are absent."""
    folder = pathlib.Path(os.environ.get("MOTION_JAX_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real clips are absent: {folder} is no folder (set MOTION_JAX_TEST_DATA)")
    return folder
