"""Mean and variance per channel in one pass over the data; equals ``jnp.mean`` and ``jnp.var`` over the other axes.

R50's training step, 2 clips on two CPU cores: 3716 instead of 4655 ms of wall time with the mean first and centred
squares after it. It loses precision where the mean is far larger than the deviation.
"""

import math

import jax
import jax.numpy as jnp


def mean_and_variance(
    x: jax.Array, *, maps: int = 1, zeros: int = 0, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array, int]:
    """Return mean, biased variance and count of each channel of ``(*lead, maps * c)``: ``(c,)``, ``(c,)``, a number.

    Args:
        x: the data, float32 at least.
        maps: how many maps lie side by side along the channels; they share the statistics.
        zeros: further elements per channel, all 0, that count without being there.
        axis_name: mapped axis whose members share the statistics; None for none.
    """
    present = math.prod(x.shape[:-1]) * maps
    count = present + zeros

    def average(values: jax.Array) -> jax.Array:
        mean = present / max(count, 1) * values.mean(range(values.ndim - 1)).reshape(maps, -1).mean(0)
        return mean if axis_name is None else jax.lax.pmean(mean, axis_name)

    mean = average(x)
    var = jnp.maximum(average(jnp.square(x)) - jnp.square(mean), 0)
    return mean, var, count if axis_name is None else count * jax.lax.axis_size(axis_name)
