"""How near is equal, in one place: share of the largest value, per dtype and per size of what is compared."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

TOLERANCE = {
    "op": {"float32": 1e-5, "float64": 1e-9, "bfloat16": 2e-2},
    "block": {"float32": 1e-5, "float64": 1e-9, "bfloat16": 2e-2},
}
# Logits are compared absolutely, as the goldens state them.
LOGITS = 1e-4
LOGITS_LARGE = 2e-4  # ResNet-50, or 16 frames


def assert_close(actual, expected, *, kind: str = "op", dtype: str = "float32") -> None:
    """Equal up to the tolerance of ``kind`` and ``dtype``, relative to the largest expected value."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    scale = np.abs(expected).max() if expected.size else 1.0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[kind][dtype] * max(scale, 1e-30))


def check_gradients(f: Callable, arguments: tuple[jax.Array, ...], **options: float) -> None:
    """Reverse-mode gradients against finite differences, which come as NumPy arrays."""
    check_grads(lambda *given: f(*map(jnp.asarray, given)), arguments, order=1, modes=["rev"], **options)
