import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from motion_jax.inspection import reference
from motion_jax.ops import max_pool

CASES = [
    ((2, 3, 7, 8, 4), {"window": (3, 3), "strides": (2, 2), "padding": ((1, 1), (1, 1))}),
    ((2, 5, 4, 6, 3), {"window": (2, 2, 2), "strides": (2, 2, 2), "padding": ((0, 1), (0, 0), (0, 0))}),
    ((3, 5, 2), {"window": (3,), "strides": (1,), "padding": ((1, 1),)}),
]


@pytest.mark.parametrize(("shape", "options"), CASES)
@pytest.mark.parametrize("implementation", [None, "reference"])
def test_equals_the_loop(rng, implementation, shape, options):
    x = rng.standard_normal(shape).astype(np.float32)
    x[0, :2] = np.nan
    actual = max_pool(jnp.asarray(x), **options, implementation=implementation)
    np.testing.assert_array_equal(actual, reference.max_pool(x, **options))


def test_the_first_of_equal_entries_takes_the_gradient():
    pool = functools.partial(max_pool, window=(3,), strides=(3,), padding=((0, 0),))
    gradient = jax.grad(lambda x: pool(x).sum())(jnp.array([[[1.0], [2.0], [2.0]]]))
    np.testing.assert_array_equal(gradient[0, :, 0], [0, 1, 0])


def test_options_of_other_ranks_are_refused():
    with pytest.raises(ValueError, match="must name the same spatial axes"):
        max_pool(jnp.ones((1, 4, 4, 2)), window=(3, 3), strides=(2,), padding=((1, 1), (1, 1)))
