import jax.numpy as jnp
import numpy as np
import pytest
from tolerance import assert_close, check_gradients

from motion_jax.inspection import reference
from motion_jax.ops import relative_scores


@pytest.mark.parametrize(("shape", "rows"), [((2, 3, 5, 4), 9), ((1, 6, 2), 5), ((4, 1, 3), 1)])
def test_equals_the_loop(rng, shape, rows):
    query = rng.standard_normal(shape).astype(np.float32)
    table = rng.standard_normal((rows, shape[-1])).astype(np.float32)
    assert_close(relative_scores(jnp.asarray(query), jnp.asarray(table)), reference.relative_scores(query, table))


def test_further_positions_share_the_last_embedding():
    scores = relative_scores(jnp.ones((4, 1)), jnp.array([[1.0], [2.0], [3.0]]))
    np.testing.assert_array_equal(scores[0], [2, 3, 3, 3])
    np.testing.assert_array_equal(scores[3], [1, 1, 1, 2])


def test_gradient(rng):
    query = jnp.asarray(rng.standard_normal((2, 3, 2)), jnp.float32)
    table = jnp.asarray(rng.standard_normal((3, 2)), jnp.float32)
    check_gradients(relative_scores, (query, table), rtol=1e-2)


def test_bfloat16_scores_in_float32(rng):
    query, table = rng.standard_normal((4, 8)), rng.standard_normal((5, 8))
    scores = relative_scores(jnp.asarray(query, jnp.bfloat16), jnp.asarray(table, jnp.bfloat16))
    assert scores.dtype == jnp.float32
    assert_close(scores, reference.relative_scores(query, table), dtype="bfloat16")


def test_bad_table(annotations_off):
    with pytest.raises(ValueError, match="odd number of rows"):
        relative_scores(jnp.ones((3, 2)), jnp.ones((4, 2)))
