"""Learning rates against values written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from motion_jax.training.recipe import make_schedule
from motion_jax.training.schedules import cosine_schedule, step_schedule


def test_step_schedule_drops_at_the_first_update_of_the_epoch():
    # 30 epochs of 2.5 updates are 75 updates, 40 are 100: SELFY's recipe on a tiny data set.
    lr = step_schedule(0.01, milestones=(30, 40), factor=0.1, steps_per_epoch=2.5)
    got = [float(lr(n)) for n in (0, 74, 75, 99, 100, 1000)]
    np.testing.assert_allclose(got, [0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001], rtol=1e-6)


def test_step_schedule_inside_an_update_drops_at_the_next():
    lr = step_schedule(1.0, milestones=(1,), factor=0.5, steps_per_epoch=3.4)
    assert [float(lr(n)) for n in (3, 4)] == [1.0, 0.5]


def test_step_schedule_is_not_delayed_by_rounding():
    # 3.0000000000000004 updates are 3.
    lr = step_schedule(1.0, milestones=(0.1,), factor=0.5, steps_per_epoch=30.000000000000004)
    assert float(lr(3)) == 0.5


def test_two_milestones_of_one_update_count_both():
    lr = step_schedule(1.0, milestones=(1, 2, 3), factor=0.5, steps_per_epoch=0.4)
    assert [float(lr(n)) for n in (0, 1, 2)] == [1.0, 0.25, 0.125]


def test_step_schedule_without_milestones_is_constant():
    lr = step_schedule(0.2, milestones=(), factor=0.1, steps_per_epoch=5)
    assert float(lr(10**6)) == pytest.approx(0.2)


def test_cosine_schedule_by_hand():
    # 2 epochs of 2 updates rise to 0.4, the other 8 updates fall: (1 + cos(pi i / 8)) / 2.
    lr = cosine_schedule(0.4, warmup_epochs=2, steps_per_epoch=2, total_steps=12)
    rise = [0.1, 0.2, 0.3, 0.4]
    fall = [0.4, 0.384776, 0.341421, 0.276537, 0.2, 0.123463, 0.058579, 0.015224]
    got = [float(lr(n)) for n in range(12)]
    np.testing.assert_allclose(got, rise + fall, atol=1e-6)
    assert float(lr(12)) == float(lr(13)) == 0.0


def test_cosine_schedule_without_warm_up_starts_at_the_base():
    lr = cosine_schedule(0.4, warmup_epochs=0, steps_per_epoch=2, total_steps=12)
    assert float(lr(0)) == pytest.approx(0.4)


def test_cosine_schedule_refuses_a_warm_up_as_long_as_the_run():
    with pytest.raises(ValueError, match=r"takes 20 of 20 steps: lower train.warmup_epochs"):
        cosine_schedule(0.1, warmup_epochs=10, steps_per_epoch=2, total_steps=20)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "lr",
    [
        lambda: step_schedule(0.01, milestones=(1,), factor=0.1, steps_per_epoch=2),
        lambda: cosine_schedule(0.01, warmup_epochs=0, steps_per_epoch=2, total_steps=9),
        lambda: cosine_schedule(0.01, warmup_epochs=0.5, steps_per_epoch=2, total_steps=9),
    ],
)
def test_schedules_keep_float64(lr):
    rate = jax.jit(lr())(jnp.int32(0))
    assert rate.dtype == jnp.float64
    assert float(rate) == 0.01


@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_the_rate_follows_the_batch_if_a_base_is_given(schedule):
    def rates(**changes):
        train = tiny_runs.train_config(schedule=schedule, learning_rate=0.5, steps=20, **changes)
        rate = make_schedule(train, train_size=24)
        return [float(rate(step)) for step in range(0, 20, 5)]

    plain = rates(batch_size=24)
    assert rates(batch_size=24, base_batch_size=None) == plain
    np.testing.assert_allclose(rates(batch_size=24, base_batch_size=8), 3 * np.array(plain), rtol=1e-6)
    np.testing.assert_allclose(rates(batch_size=24, base_batch_size=96), np.array(plain) / 4, rtol=1e-6)
    with pytest.raises(ValueError, match=r"train\.base_batch_size is 0, expected 1 to 2\*\*20, or None"):
        rates(base_batch_size=0)
