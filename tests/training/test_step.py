"""The training and evaluation steps: the same numbers on one and on eight devices, with both backends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_runs
from flax import linen as nn

from motion_jax.training import parallel as par
from motion_jax.training.metrics import summarise
from motion_jax.training.mixing import mix
from motion_jax.training.optimizer import sgd
from motion_jax.training.state import TrainState, create_state, fingerprint
from motion_jax.training.step import make_eval_step, make_train_step

LAYOUTS = [("pmap", 1), ("pmap", 8), ("shard_map", 1), ("shard_map", 8)]


def plain_sgd(clip_norm=None):
    return sgd(
        lambda count: jnp.float32(0.1),
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-3,
        clip_norm=clip_norm,
        groups="plain",
        classifier_lr=(1.0, 2.0),
    )


def train(model, layout, *, steps=4, optimizer=None):
    """Return the metrics of each of a few steps, and the last state."""
    parallel = par.ParallelConfig(backend=layout[0], devices=layout[1])
    optimizer = optimizer or plain_sgd()
    state = par.place_state(create_state(model, optimizer, seed=0, clip_shape=(2, 4, 4, 3)), parallel)
    step = par.replicate(make_train_step(model, optimizer, schedule=lambda n: jnp.float32(0.1), seed=0), parallel)
    metrics = []
    for batch, _ in zip(tiny_runs.train_batches(0), range(steps), strict=False):
        placed = par.place_batch({name: batch[name] for name in ("clips", "label")}, parallel)
        state, values = step(state, placed)
        metrics.append({name: float(value) for name, value in values.items()})
    return metrics, state


@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_equal_a_plain_loop_on_the_whole_batch(layout):
    # The reference uses no collectives or devices: it shows that gradients are averaged, not summed over devices.
    model = tiny_runs.TinyNet(norm=False)
    params = create_state(model, plain_sgd(), seed=0, clip_shape=(2, 4, 4, 3)).params
    tx = optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(0.1, 0.9, nesterov=True))
    opt_state = tx.init(params)
    expected = []
    for batch, _ in zip(tiny_runs.train_batches(0), range(4), strict=False):

        def loss_of(params, batch=batch):
            logits = model.apply({"params": params}, jnp.asarray(batch["clips"]), train=True)
            return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(8), batch["label"]])

        loss, grads = jax.value_and_grad(loss_of)(params)
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(grads)))
        expected.append((float(loss), float(norm)))
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
    metrics, state = train(model, layout)
    np.testing.assert_allclose([m["loss"] for m in metrics], [loss for loss, _ in expected], atol=1e-5)
    np.testing.assert_allclose([m["grad_norm"] for m in metrics], [norm for _, norm in expected], rtol=1e-5)
    for got, want in zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)
    assert int(state.step) == 4


def test_statistics_are_per_device_and_stored_as_their_mean():
    model = tiny_runs.TinyNet()
    _, state = train(model, ("shard_map", 4), steps=1)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 2, 4, 4, 3), jnp.uint8), train=False)
    params = create_state(model, plain_sgd(), seed=0, clip_shape=(2, 4, 4, 3)).params
    variables = {"params": params, "batch_stats": variables["batch_stats"]}
    clips = tiny_runs.batch_of(range(8))["clips"]
    per_device = [
        model.apply(variables, jnp.asarray(clips[i : i + 2]), train=True, mutable=["batch_stats"])[1]["batch_stats"]
        for i in range(0, 8, 2)
    ]
    expected = jax.tree.map(lambda *stats: np.mean(stats, axis=0), *per_device)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.batch_stats, expected)
    # Statistics over the whole batch would differ: their variance is larger than that within pairs.
    whole = model.apply(variables, jnp.asarray(clips), train=True, mutable=["batch_stats"])[1]["batch_stats"]
    assert np.abs(whole["bn1"]["var"] - expected["bn1"]["var"]).max() > 1e-3


def test_both_backends_agree_with_norm_and_dropout():
    model = tiny_runs.TinyNet(dropout=0.5)
    a, state_a = train(model, ("pmap", 8))
    b, state_b = train(model, ("shard_map", 8))
    np.testing.assert_allclose([m["loss"] for m in a], [m["loss"] for m in b], atol=1e-6)
    for x, y in zip(jax.tree.leaves(state_a), jax.tree.leaves(state_b), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-6)


def test_dropout_differs_between_steps_devices_and_seeds():
    class Mask(nn.Module):
        """Network whose logits show the dropout mask of each clip."""

        @nn.compact
        def __call__(self, clips, *, train):
            scale = self.param("scale", nn.initializers.ones, ())
            return scale * nn.Dropout(0.5, deterministic=not train)(jnp.ones((len(clips), 64)))

    def masks(seed, step):
        model = Mask()
        parallel = par.ParallelConfig(backend="shard_map", devices=2)

        def show(variables, batch):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), jax.lax.axis_index("data"))
            out = model.apply(variables, batch["clips"], train=True, rngs={"dropout": key})
            return jnp.zeros(()), out

        f = par.replicate(show, parallel, split=(False, True), donate=False)
        variables = {"params": {"scale": jnp.ones(())}}
        batch = par.place_batch({"clips": np.zeros((2, 2, 4, 4, 3), np.uint8)}, parallel)
        return par.local_rows(f(par.place_state(variables, parallel), batch)[1], parallel)

    model = Mask()
    losses = {}
    for seed in (0, 1):
        parallel = par.ParallelConfig(backend="shard_map", devices=2)
        state = par.place_state(create_state(model, optax.sgd(0.0), seed=0, clip_shape=(2, 4, 4, 3)), parallel)
        step = par.replicate(
            make_train_step(model, optax.sgd(0.0), schedule=lambda n: jnp.zeros(()), seed=seed), parallel
        )
        batch = {"clips": np.zeros((2, 2, 4, 4, 3), np.uint8), "label": np.zeros(2, np.int32)}
        for i in (0, 1):
            state, metrics = step(state, par.place_batch(batch, parallel))
            shown = masks(seed, i)
            assert (shown[0] != shown[1]).any(), "two devices dropped the same values"
            want = np.mean([np.log(np.exp(row).sum()) - row[0] for row in shown])
            assert float(metrics["loss"]) == pytest.approx(want, rel=1e-5)
            losses[seed, i] = float(metrics["loss"])
    assert len(set(losses.values())) == 4


def test_grad_norm_is_reported_before_clipping():
    model = tiny_runs.TinyNet(norm=False)
    free, _ = train(model, ("pmap", 2), steps=1)
    clipped, _ = train(model, ("pmap", 2), steps=1, optimizer=plain_sgd(clip_norm=1e-3))
    assert clipped[0]["grad_norm"] == free[0]["grad_norm"] > 1e-2


@pytest.mark.usefixtures("x64")
def test_everything_is_float64_when_enabled():
    model = tiny_runs.TinyNet(norm=False)
    optimizer = plain_sgd()
    drawn = create_state(model, optimizer, seed=0, clip_shape=(2, 4, 4, 3)).variables
    variables = jax.tree.map(lambda x: np.asarray(x, np.float64), drawn)
    parallel = par.ParallelConfig(backend="shard_map", devices=2)
    state = create_state(model, optimizer, seed=0, clip_shape=(2, 4, 4, 3), variables=variables)
    step = par.replicate(make_train_step(model, optimizer, schedule=lambda n: 0.1, seed=0), parallel)
    batch = tiny_runs.batch_of(range(8))
    del batch["index"]
    state, metrics = step(par.place_state(state, parallel), par.place_batch(batch, parallel))
    assert metrics["loss"].dtype == jnp.float64
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype(jnp.float64)}
    assert state.step.dtype == jnp.int32


@pytest.mark.parametrize("backend", ["pmap", "shard_map"])
def test_donated_state_is_gone_and_the_callers_arrays_are_not(backend):
    parallel = par.ParallelConfig(backend=backend, devices=2)
    model, optimizer = tiny_runs.TinyNet(), plain_sgd()
    own = create_state(model, optimizer, seed=0, clip_shape=(2, 4, 4, 3))
    before = fingerprint(own)
    state = par.place_state(own, parallel)
    step = par.replicate(make_train_step(model, optimizer, schedule=lambda n: jnp.float32(0), seed=0), parallel)
    batch = tiny_runs.batch_of(range(8))
    del batch["index"]
    after, _ = step(state, par.place_batch(batch, parallel))
    jax.block_until_ready(after)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert fingerprint(own) == before


class Given(nn.Module):
    """Network whose logits are the first row of pixels of the first frame."""

    @nn.compact
    def __call__(self, clips, *, train):
        del train
        return clips[:, 0, 0, :, 0].astype(jnp.float32)


def evaluate_given(logits, label, mask, *, average, layout=("shard_map", 2)):
    """Run the evaluation step on given logits (b, v, k)."""
    parallel = par.ParallelConfig(backend=layout[0], devices=layout[1])
    clips = np.asarray(logits, np.float32)[:, :, None, None, :, None]
    batch = {"clips": clips, "label": np.asarray(label, np.int32), "mask": np.asarray(mask)}
    step = par.replicate(make_eval_step(Given(), average=average), parallel, split=(False, True), donate=False)
    sums, scores = step({"params": {}}, par.place_batch(batch, parallel))
    return jax.tree.map(np.asarray, sums), par.local_rows(scores, parallel)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("average", ["softmax", "logits"])
@pytest.mark.parametrize("layout", [("pmap", 1), ("pmap", 4), ("shard_map", 4)])
def test_eval_step_against_numpy(rng, average, layout):
    logits = rng.normal(size=(8, 3, 7)) * 3
    label = rng.integers(0, 7, 8)
    mask = np.array([True] * 6 + [False] * 2)
    # The masked rows would be hits.
    label[6:] = (softmax(logits) if average == "softmax" else logits).mean(1)[6:].argmax(1)
    sums, scores = evaluate_given(logits, label, mask, average=average, layout=layout)
    want = softmax(logits).mean(1) if average == "softmax" else logits.mean(1)
    np.testing.assert_allclose(scores, want, rtol=1e-5, atol=1e-6)
    assert scores.dtype == np.float32
    probability = want if average == "softmax" else softmax(want)
    rank = np.array([np.sum(want[i] > want[i, label[i]]) for i in range(8)])
    np.testing.assert_allclose(sums["loss"], -np.log(probability[np.arange(6), label[:6]]).sum(), rtol=1e-5)
    assert sums["top1"] == np.sum(rank[:6] < 1)
    assert sums["top5"] == np.sum(rank[:6] < 5)
    assert sums["count"] == 6
    np.testing.assert_array_equal(sums["class_count"], np.bincount(label[:6], minlength=7))
    np.testing.assert_array_equal(sums["class_correct"], np.bincount(label[:6][rank[:6] < 1], minlength=7))


def test_averages_differ_where_views_disagree():
    # One confident view for class 0, two less confident ones for class 1: class 0 wins only with logits.
    logits = [[[20.0, 0.0], [0.0, 2.0], [0.0, 2.0]]] * 2
    by_softmax, _ = evaluate_given(logits, [1, 1], [True, True], average="softmax")
    by_logits, _ = evaluate_given(logits, [1, 1], [True, True], average="logits")
    assert (by_softmax["top1"], by_logits["top1"]) == (2, 0)


def test_loss_is_finite_where_the_probability_underflows():
    sums, scores = evaluate_given([[[300.0, 0.0]]] * 2, [1, 1], [True, True], average="softmax")
    assert scores[0, 1] == 0
    assert sums["loss"] == pytest.approx(600.0)


def test_padding_changes_no_metric(rng):
    logits, label = rng.normal(size=(6, 2, 4)), rng.integers(0, 4, 6)
    short, _ = evaluate_given(logits, label, [True] * 6, average="softmax")
    filled = np.concatenate([logits, np.full((2, 2, 4), np.nan)])
    padded, _ = evaluate_given(filled, [*label, 0, 3], [True] * 6 + [False] * 2, average="softmax")
    assert summarise(short) == pytest.approx(summarise(padded), rel=1e-6)


def test_unknown_average_is_refused():
    with pytest.raises(ValueError, match="average is 'mean'"):
        make_eval_step(Given(), average="mean")


class Columns(nn.Module):
    """Network whose logits are the means of the columns."""

    @nn.compact
    def __call__(self, clips, *, train):
        del train
        return clips.mean(axis=(1, 2))[..., 0]


def losses_of_steps(layout, steps, **mixing):
    """Return loss and top-1 of ``Columns`` on one batch for each step number, and that batch."""
    parallel = par.ParallelConfig(backend=layout[0], devices=layout[1])
    rng = np.random.default_rng(1)
    clips = (6 * rng.normal(size=(8, 1, 6, 7, 1))).astype(np.float32)
    # Most labels are right, so the accuracy tells which label counts.
    label = np.where(np.arange(8) < 6, clips.mean((1, 2))[..., 0].argmax(1), 0).astype(np.int32)
    optimizer = optax.sgd(0.0)
    train_step = make_train_step(Columns(), optimizer, schedule=lambda n: jnp.zeros(()), seed=3, **mixing)
    replicate = par.replicate(train_step, parallel)
    batch = par.place_batch({"clips": clips, "label": label}, parallel)
    params = {"unused": jnp.zeros(())}
    metrics = []
    for step in steps:
        state = TrainState(jnp.int32(step), params, {}, optimizer.init(params))
        values = replicate(par.place_state(state, parallel), batch)[1]
        metrics.append({name: float(value) for name, value in values.items()})
    return metrics, clips, label


def logarithms(clips):
    return np.log(softmax(np.asarray(clips, float).mean((1, 2))[..., 0]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_label_smoothing_against_numpy(layout):
    (metrics,), clips, label = losses_of_steps(layout, [0], label_smoothing=0.1)
    logs = logarithms(clips)
    assert metrics["loss"] == pytest.approx(np.mean(-0.9 * logs[np.arange(8), label] - 0.1 * logs.mean(1)), rel=1e-5)
    assert metrics["top1"] == pytest.approx(100 * np.mean(logs.argmax(1) == label))


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        (("pmap", 2), {"mixup": 0.7, "cutmix": 0.0}),
        (("shard_map", 2), {"mixup": 0.7, "cutmix": 0.0}),
        (("shard_map", 2), {"mixup": 0.0, "cutmix": 0.7}),
    ],
)
def test_mixing_is_per_device_and_follows_seed_step_and_device(layout, options):
    steps = (2, 3, 4)
    metrics, clips, label = losses_of_steps(layout, steps, label_smoothing=0.2, **options)
    mix_jitted = jax.jit(functools.partial(mix, **options))
    shares, meant = set(), []
    for step, got in zip(steps, metrics, strict=True):
        losses, hits = [], []
        for device, rows in enumerate(np.split(np.arange(8), 2)):
            key = jax.random.key(3)
            for number in (step, device, 1):
                key = jax.random.fold_in(key, number)
            mixed, other, share = jax.device_get(mix_jitted(key, clips[rows], label[rows]))
            logs, one = logarithms(mixed), np.arange(4)
            own = share * logs[one, label[rows]] + (1 - share) * logs[one, other]
            losses += (-0.8 * own - 0.2 * logs.mean(1)).tolist()
            hits += (logs.argmax(1) == (label[rows] if share >= 0.5 else other)).tolist()
            shares.add(float(share))
            meant.append(np.mean(hits[-4:]) != np.mean(logs.argmax(1) == label[rows]))
        assert got["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert got["top1"] == pytest.approx(100 * np.mean(hits))
    # Two rectangles of so few pixels may be equal by chance.
    assert len(shares) >= 4, "steps or devices draw the same"
    assert any(meant), "no clip has the other's label as the greater part"


def test_nothing_is_drawn_when_nothing_is_mixed():
    parallel = par.ParallelConfig(backend="shard_map", devices=1)
    state = TrainState(jnp.int32(0), {}, {}, optax.sgd(0.0).init({}))
    batch = {"clips": jnp.zeros((2, 1, 1, 5, 1)), "label": jnp.zeros(2, jnp.int32)}

    def program(**changes):
        step = make_train_step(Columns(), optax.sgd(0.0), schedule=lambda n: jnp.zeros(()), seed=0, **changes)
        return par.replicate(step, parallel).lower(state, batch).as_text()

    assert "while" not in program(label_smoothing=0.1)
    assert "while" in program(mixup=1.0)
