"""Learning rates as functions of the number of completed updates, stated in epochs."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax


def step_schedule(base: float, *, milestones: Sequence[float], factor: float, steps_per_epoch: float) -> optax.Schedule:
    """Multiply the learning rate by ``factor`` after each of ``milestones``, in epochs.

    The first update that begins at or after a milestone uses the lower rate, as in a PyTorch loop that sets the rate
    at the start of every epoch. The result is float32, or float64 where that is enabled.

    Args:
        base: rate of the first update.
        milestones: epochs, rising.
        factor: applied once per milestone.
        steps_per_epoch: updates per epoch; may be fractional.

    >>> lr = step_schedule(0.5, milestones=(2, 3), factor=0.5, steps_per_epoch=10)
    >>> [float(lr(n)) for n in (0, 19, 20, 29, 30)]
    [0.5, 0.5, 0.25, 0.25, 0.125]
    """
    # Rounded first, so that 0.1 epochs of 30 updates begin at update 3 and not, by float error, at 4.
    boundaries = [math.ceil(round(milestone * steps_per_epoch, 6)) for milestone in milestones]
    values = [base * factor**passed for passed in range(len(boundaries) + 1)]

    def rate(count: jax.typing.ArrayLike) -> jax.Array:
        passed = jnp.sum(jnp.asarray(count) >= jnp.array(boundaries, jnp.int32))
        return jnp.array(values, jnp.result_type(float))[passed]

    return rate


def cosine_schedule(base: float, *, warmup_epochs: float, steps_per_epoch: float, total_steps: int) -> optax.Schedule:
    """Rise linearly to ``base`` over ``warmup_epochs``, then fall to 0 along half a cosine.

    With ``w`` warm-up updates out of ``total_steps``, update ``n`` (from 0) uses ``base * (n + 1) / w`` while
    ``n < w``, so the first update is not wasted on a rate of 0, and then
    ``base * (1 + cos(pi * (n - w) / (total_steps - w))) / 2``.
    The result is float32, or float64 where that is enabled.

    Args:
        base: the highest rate.
        warmup_epochs: may be 0.
        steps_per_epoch: updates per epoch; may be fractional.
        total_steps: updates of the whole run, warm-up included.

    Raises:
        ValueError: if the warm-up takes the whole run.

    >>> lr = cosine_schedule(1.0, warmup_epochs=2, steps_per_epoch=1, total_steps=6)
    >>> [round(float(lr(n)), 4) for n in range(7)]
    [0.5, 1.0, 1.0, 0.8536, 0.5, 0.1464, 0.0]
    """
    warmup = round(warmup_epochs * steps_per_epoch)
    if warmup >= total_steps:
        raise ValueError(
            f"the warm-up of {warmup_epochs} epochs takes {warmup} of {total_steps} steps: "
            "lower train.warmup_epochs or train longer"
        )

    def rate(count: jax.typing.ArrayLike) -> jax.Array:
        n = jnp.asarray(count, jnp.result_type(float))
        progress = jnp.clip((n - warmup) / (total_steps - warmup), 0.0, 1.0)
        rising = base * (n + 1) / max(warmup, 1)
        return jnp.where(n < warmup, rising, base * (1 + jnp.cos(jnp.pi * progress)) / 2)

    return rate
