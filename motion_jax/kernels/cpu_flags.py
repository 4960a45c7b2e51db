"""XLA settings for a CPU, which cut the time of a training step by a sixth (docs/performance.md).

Commands set them on a machine without an accelerator. Other programs call ``use`` before JAX initialises a device.
"""

import importlib.metadata
import importlib.util
import os

FLAGS = (
    # Convolutions and products by Eigen, sums alone by YNNPACK. With everything by YNNPACK, the default, a convolution
    # with fewer than 96 channels runs on one core and a kernel's gradient takes up to twice as long.
    "--xla_cpu_experimental_ynn_fusion_type=reduce",
    # The older code for fused loops.
    "--xla_cpu_use_fusion_emitters=false",
    # Keep optimization barriers until after fusion; otherwise `materialise` has no effect.
    "--xla_disable_hlo_passes=cse_barrier_expander",
)

# XLA aborts on an unknown flag, so the settings are limited to the version where they were measured. jaxlib 0.11.2 has
# no second flag, does the third by default, and the first gains a few percent in training but loses them elsewhere.
_JAXLIB = "0.10.2"


def use() -> None:
    """Add the settings to ``XLA_FLAGS`` if this process will compute on a CPU; flags given there already are kept.

    Has no effect once JAX has initialised a device, where an accelerator's plug-in is installed and ``JAX_PLATFORMS``
    is not ``cpu``, where the TPU's compiler is installed, which would read them too, or with a jaxlib other than
    0.10.2.
    """
    if importlib.metadata.version("jaxlib") != _JAXLIB or not _computes_on_a_cpu():
        return
    given = os.environ.get("XLA_FLAGS", "")
    missing = [flag for flag in FLAGS if flag.partition("=")[0] not in given]
    os.environ["XLA_FLAGS"] = " ".join([given, *missing]).strip()


def _computes_on_a_cpu() -> bool:
    if importlib.util.find_spec("libtpu") is not None:
        return False
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms == "cpu"
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return not plugins and importlib.util.find_spec("jax_plugins") is None
