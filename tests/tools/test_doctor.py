"""tools.doctor: this machine passes, and injected faulty correlations are caught."""

import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench import call, error_of

from motion_jax import ops
from motion_jax.inspection import health, reference

SUBJECTS = health.make_subjects()
# The first of each name is the smallest.
SMALLEST = {subject.name: subject for subject in reversed(SUBJECTS)}


def failed(name, dtype="float32"):
    """Return the parts of the smallest subject of a name that fail; all parts must have been compared."""
    checks = health.examine(SMALLEST[name], dtype)
    assert not any(check.error for check in checks), checks
    return {check.part for check in checks if not check.passed}


def test_this_machine_passes():
    """Run the whole command: float32 and bfloat16, and eight devices under pmap and shard_map."""
    done = call("doctor", "--json")
    *_, verdict, last = done.stdout.splitlines()
    result = json.loads(last)
    assert (done.returncode, result["healthy"]) == (0, True)
    assert verdict == f"healthy: {len(result['checks'])} of {len(result['checks'])} checks within their bounds"
    assert result["versions"]["jax"] == jax.__version__
    assert len(result["devices"]) == jax.device_count()
    of = {(check["name"], check["dtype"], check["part"]) for check in result["checks"]}
    names = {"temporal_shift", "local_correlation", "match", "self_similarity", "MotionSqueeze", "Selfy"}
    assert of == {(n, d, p) for n in names for d in ("float32", "bfloat16") for p in ("result", "gradient")}
    assert {"pmap on 8 devices", "shard_map on 8 devices"} <= {check["case"] for check in result["checks"]}
    assert all(check["difference"] <= check["bound"] for check in result["checks"])
    # With room to spare, so that another device's order of summation passes too.
    exact = [c for c in result["checks"] if (c["dtype"], c["part"]) == ("float32", "result")]
    assert max(check["difference"] / check["bound"] for check in exact) < 0.2


@pytest.mark.parametrize("name", ["match", "MotionSqueeze", "Selfy"])
def test_float64_where_it_is_enabled(x64, name):
    assert not failed(name, "float64")
    assert any(check.args[1] == "float64" for check in health.make_checks()[:-2])


def test_slopes():
    def f(x, y):
        return float((x**2).sum() * y[0])

    along = [np.array([[1.0, 0.0], [1.0, -1.0]]), np.array([[2.0], [1.0]])]
    found = reference.slopes(f, [np.array([1.0, 3.0]), np.array([5.0])], directions=along)
    np.testing.assert_allclose(found, [[10, -20], [20, 10]], rtol=1e-6)


@pytest.mark.parametrize("subject", [s for s in SUBJECTS if s.name == "match"], ids=lambda s: s.case)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_best_match_is_never_a_near_tie(subject, dtype):
    """With a near-tie, another device might correctly choose another cell, and finite differences would jump."""
    source, target = (np.asarray(jnp.asarray(half, dtype), np.float64) for half in subject.arguments)
    radius = int(subject.case.rpartition("=")[2])
    scores = np.maximum(reference.local_correlation(source, target, radius=radius), 0)
    second, best = np.sort(scores.reshape(-1, (2 * radius + 1) ** 2), axis=-1)[:, -2:].T
    assert (best - second)[best > 0].min() > 5e-6


@pytest.mark.parametrize("name", ["MotionSqueeze", "Selfy"])
def test_no_value_before_a_relu_is_close_to_zero(monkeypatch, name):
    """Rounding must not change the sign of any value before a ReLU inside the blocks."""
    smallest = []

    def conv_bn_relu(layers, x, conv, bn, **options):
        before = layers.bn(layers.conv(x, conv, **options), bn)
        smallest.append(np.abs(before).min())
        return np.maximum(before, 0)

    monkeypatch.setattr(reference.Layers, "conv_bn_relu", conv_bn_relu)
    subject = SMALLEST[name]
    result = subject.expect(*(np.float32(argument).astype(np.float64) for argument in subject.arguments))
    assert min(smallest) > 5e-6
    # The block changes its input noticeably.
    still = subject.arguments[0] if name == "MotionSqueeze" else np.maximum(subject.arguments[0], 0)
    assert np.mean(result != still) > 0.3


CORRELATION, MATCH = ops.local_correlation, ops.match


def transposed(source, target, *, radius, **options):
    return jnp.swapaxes(CORRELATION(source, target, radius=radius, **options), -1, -2)


def only_first(source, target, *, radius, **options):
    scores = CORRELATION(source, target, radius=radius, **options)
    return scores.at[1:].set(0)


def off_by_one(source, target, *, radius, **options):
    return jnp.roll(CORRELATION(source, target, radius=radius, **options), 1, axis=-1)


def mirrored(source, target, *, radius, **options):
    return CORRELATION(source, target, radius=radius, **options)[..., ::-1, ::-1]


def wrapped_round(source, target, *, radius, **options):
    if options.get("cosine"):
        source, target = ops.l2_normalize(source), ops.l2_normalize(target)
    moves = range(-radius, radius + 1)
    rows = [[(source * jnp.roll(target, (-i, -j), (1, 2))).sum(-1) for j in moves] for i in moves]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2).astype(jnp.float32)


def mean_of_channels(source, target, *, radius, **options):
    return CORRELATION(source, target, radius=radius, **options) / source.shape[-1]


def coarse(source, target, *, radius, **options):
    """Multiply as an accelerator does by default: with 10 bits of each factor."""
    cut = lambda x: x + jax.lax.stop_gradient(jax.lax.reduce_precision(x, 8, 10) - x)  # noqa: E731
    return CORRELATION(cut(source), cut(target), radius=radius, **options)


def without_gradient_of_target(source, target, *, radius, **options):
    return CORRELATION(source, jax.lax.stop_gradient(target), radius=radius, **options)


def border_without_gradient(source, target, *, radius, **options):
    inner = target[:, :-1, :, :]
    target = jnp.concatenate([inner, jax.lax.stop_gradient(target[:, -1:])], axis=1)
    return CORRELATION(source, target, radius=radius, **options)


def gradient_of_target_not_a_number(source, target, *, radius, **options):
    # The slope of a square root at zero, times zero.
    return CORRELATION(source, target + jnp.sqrt(0 * target), radius=radius, **options)


WRONG = [transposed, only_first, off_by_one, mirrored, wrapped_round, mean_of_channels, coarse]
WRONG_GRADIENT = [without_gradient_of_target, border_without_gradient, gradient_of_target_not_a_number]


@pytest.mark.parametrize("wrong", [*WRONG, *WRONG_GRADIENT], ids=lambda f: f.__name__)
def test_a_wrong_correlation_is_caught(monkeypatch, wrong):
    monkeypatch.setattr(ops, "local_correlation", wrong)
    assert failed("local_correlation") >= ({"gradient"} if wrong in WRONG_GRADIENT else {"result"})


@pytest.mark.parametrize("wrong", [*WRONG, *WRONG_GRADIENT], ids=lambda f: f.__name__)
def test_a_wrong_correlation_is_caught_in_the_self_similarity(monkeypatch, wrong):
    module = importlib.import_module("motion_jax.ops.self_similarity")
    monkeypatch.setattr(module, "local_correlation", wrong)
    assert failed("self_similarity")


def match_through(correlation):
    """Make a matching function on another correlation."""

    def match(source, target, *, radius, sigma, temperature, dilation=1, cosine=False):
        scores = jax.nn.relu(correlation(source, target, radius=radius, cosine=cosine))
        displacement = ops.kernel_soft_argmax(scores, sigma=sigma, temperature=temperature)
        return displacement, scores.max((-1, -2))[..., None]

    return match


def test_matching_through_the_right_correlation_passes(monkeypatch):
    monkeypatch.setattr(ops, "match", match_through(CORRELATION))
    assert not failed("match")


@pytest.mark.parametrize("wrong", [*WRONG, *WRONG_GRADIENT], ids=lambda f: f.__name__)
def test_a_wrong_matching_is_caught(monkeypatch, wrong):
    monkeypatch.setattr(ops, "match", match_through(wrong))
    assert failed("match")


@pytest.mark.parametrize(
    ("wrong", "dtype"), [(transposed, "float32"), (only_first, "float32"), (off_by_one, "bfloat16")]
)
def test_blocks_with_a_wrong_correlation_are_caught(monkeypatch, wrong, dtype):
    monkeypatch.setattr(importlib.import_module("motion_jax.blocks.motion_squeeze"), "match", match_through(wrong))
    monkeypatch.setattr(importlib.import_module("motion_jax.ops.self_similarity"), "local_correlation", wrong)
    assert failed("MotionSqueeze", dtype)
    assert failed("Selfy", dtype)


@pytest.mark.parametrize(
    ("name", "module", "compare"),
    [("MotionSqueeze", "motion_squeeze", "match"), ("Selfy", "selfy", "self_similarity")],
)
def test_missing_normalisation_is_caught(monkeypatch, name, module, compare):
    module = importlib.import_module(f"motion_jax.blocks.{module}")
    compared = getattr(module, compare)
    monkeypatch.setattr(module, compare, lambda *x, cosine, **options: compared(*x, cosine=not cosine, **options))
    assert "result" in failed(name)


@pytest.mark.parametrize("backend", ["pmap", "shard_map"])
def test_a_device_that_computes_nothing_is_caught(monkeypatch, backend):
    """All devices but the first return zeros, as after a kernel launch on the wrong device."""

    def match(source, target, **options):
        # Features differ from device to device; the first one's are known by their first value.
        first = source.ravel()[0] == health._pair(2, 9, 7, 16, seed=100)[0].astype(np.float32).ravel()[0]
        return tuple(jnp.where(first, part, 0) for part in MATCH(source, target, **options))

    assert [check.passed for check in health.examine_devices(backend)] == [True]
    monkeypatch.setattr(ops, "match", match)
    assert [check.passed for check in health.examine_devices(backend)] == [False]


def test_a_compilation_error_is_reported(monkeypatch):
    def broken(x, *, fold_div):
        raise NotImplementedError("no such kernel\non this device")

    monkeypatch.setattr(ops, "temporal_shift", broken)
    monkeypatch.setattr(health, "make_subjects", lambda: [SMALLEST["temporal_shift"]])
    done = call("doctor", "--json")
    *_, verdict, last = done.stdout.splitlines()
    assert done.returncode == 1
    assert verdict == (
        "NOT healthy: 2 of 4 checks failed: result of temporal_shift in float32, result of temporal_shift in bfloat16"
    )
    assert "WRONG NotImplementedError: no such kernel on this device" in done.stdout
    result = json.loads(last)
    assert (result["healthy"], result["checks"][0]["difference"]) == (False, None)


def test_bad_usage_is_one_line_and_status_2():
    assert "unrecognized arguments: --colour" in error_of(call("doctor", "--colour"))
