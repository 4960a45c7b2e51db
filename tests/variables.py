"""Variables without a compiled ``init``: drawn with NumPy, so that no scale is one and no statistic zero."""

import math

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np


def drawn_variables(model, clips, *, seed: int = 0) -> dict:
    """Parameters and statistics of ``model`` for clips of this shape, the same in every run."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), jnp.asarray(clips))
    shapes = flax.traverse_util.flatten_dict({name: shapes[name] for name in ("params", "batch_stats")})

    def draw(path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        if path[-1] in ("scale", "var"):
            return rng.uniform(0.5, 1.5, shape)
        deviation = math.sqrt(2 / math.prod(shape[:-1])) if path[-1] == "kernel" else 0.1
        return deviation * rng.standard_normal(shape)

    return flax.traverse_util.unflatten_dict(
        {path: jnp.asarray(draw(path, like.shape), like.dtype) for path, like in shapes.items()}
    )
