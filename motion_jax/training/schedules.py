"""Learning rates in epochs, as functions of the number of completed updates."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import optax


def step_schedule(base: float, *, milestones: Sequence[float], factor: float, steps_per_epoch: float) -> optax.Schedule:
    """Multiply the learning rate by ``factor`` at each milestone.

    The first update that begins at or after a milestone uses the lower rate, as in a PyTorch loop that sets the rate
    at the start of every epoch. Milestones are epochs in rising order; ``steps_per_epoch`` may be fractional.

    >>> lr = step_schedule(0.5, milestones=(2, 3), factor=0.5, steps_per_epoch=10)
    >>> [float(lr(n)) for n in (0, 19, 20, 29, 30)]
    [0.5, 0.5, 0.25, 0.25, 0.125]
    """
    scales: dict[int, float] = {}
    for milestone in milestones:
        # Rounded first: 0.1 epochs of 30 updates are update 3, but 3.0000000000000004 would give update 4.
        boundary = math.ceil(round(milestone * steps_per_epoch, 6))
        # Two milestones may fall on one update.
        scales[boundary] = scales.get(boundary, 1.0) * factor
    return optax.piecewise_constant_schedule(base, scales)


def cosine_schedule(base: float, *, warmup_epochs: float, steps_per_epoch: float, total_steps: int) -> optax.Schedule:
    """Raise the learning rate linearly to ``base``, then lower it to 0 along half a cosine.

    With ``w`` warm-up updates out of ``total_steps``, update ``n`` (from 0) uses ``base * (n + 1) / w`` while
    ``n < w``, so that the first update does not have a rate of 0, and then
    ``base * (1 + cos(pi * (n - w) / (total_steps - w))) / 2``.

    Raises:
        ValueError: if the warm-up takes the whole run.

    >>> lr = cosine_schedule(1.0, warmup_epochs=2, steps_per_epoch=1, total_steps=6)
    >>> [round(float(lr(n)), 4) for n in range(7)]
    [0.5, 1.0, 1.0, 0.8536, 0.5, 0.1464, 0.0]
    """
    warmup = round(warmup_epochs * steps_per_epoch)
    if warmup >= total_steps:
        taken = f"the warm-up of {warmup_epochs} epochs takes {warmup} of {total_steps} steps"
        raise ValueError(f"{taken}: lower train.warmup_epochs or train longer")
    schedule = optax.cosine_decay_schedule(base, total_steps - warmup)
    if warmup:
        rise = optax.linear_schedule(base / warmup, base, max(warmup - 1, 1))
        schedule = optax.join_schedules([rise, schedule], [warmup])
    # As a float, because optax divides an int32 count in float32 even where float64 is enabled.
    return lambda count: schedule(jnp.asarray(count, jnp.result_type(float)))
