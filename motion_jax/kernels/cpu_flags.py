"""How XLA compiles for a CPU: settings that cut a training step by a sixth, which it reads from ``XLA_FLAGS``.

Commands use them by themselves on a machine without an accelerator. In a program of your own call ``use`` before JAX
touches a device.
"""

import importlib.metadata
import importlib.util
import os

FLAGS = (
    # Convolutions and products by Eigen, sums alone by YNNPACK. All by YNNPACK, as is the default, a convolution with
    # fewer than 96 channels runs on one core and a kernel's gradient takes up to twice as long.
    "--xla_cpu_experimental_ynn_fusion_type=reduce",
    # The older code for fused loops.
    "--xla_cpu_use_fusion_emitters=false",
    # Leave optimization barriers in place until after fusion, or `materialise` does nothing.
    "--xla_disable_hlo_passes=cse_barrier_expander",
)

# XLA ends the process over a flag it does not know, so only where these were tried. jaxlib 0.11.2 no longer has the
# second, does the third by itself, and loses by the first elsewhere the few percent that it gains in training.
_JAXLIB = "0.10.2"


def use() -> None:
    """Add the settings to ``XLA_FLAGS``, but those given there already, if this process will compute on a CPU.

    Without effect once JAX has touched a device, where an accelerator's plug-in is installed and ``JAX_PLATFORMS`` is
    not ``cpu``, where the TPU's compiler is installed, which would read them too, and with another jaxlib than 0.10.2.
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
