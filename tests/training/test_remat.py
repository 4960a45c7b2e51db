"""``remat``: activations within a block are computed again for the gradients; results and parameters do not change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench import random_variables
from tolerance import assert_close

import motion_jax
from motion_jax.backbones import ResNet
from motion_jax.blocks import MotionSqueeze
from motion_jax.models import VideoClassifier

pytestmark = pytest.mark.long

CLIPS = np.random.default_rng(0).integers(0, 256, (2, 4, 32, 32, 3)).astype(np.uint8)
NAMES = ("msnet_tsm_r18", "tsm_mobilenetv2", "i3d")


def named(name, **options):
    return motion_jax.build_model(name, num_classes=5, width=8, **options)


def short(*, remat):
    """Build two residual blocks and a motion block: a whole network takes much longer to compile."""
    blocks = {"res3": MotionSqueeze(transformation="1x(1,1)")}
    backbone = ResNet((1, 1, 0, 0), bottleneck=False, width=8, fold_div=8, blocks=blocks, remat=remat)
    return VideoClassifier(backbone=backbone, num_classes=5)


def shapes_of(model):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), CLIPS, train=False))


def loss_of(model, variables):
    """Return the loss and the statistics of a training pass with dropout."""
    rngs = {"dropout": jax.random.key(1)}
    logits, updated = model.apply(variables, jnp.asarray(CLIPS), train=True, mutable=["batch_stats"], rngs=rngs)
    return -jnp.mean(jax.nn.log_softmax(logits)[:, 2]), updated["batch_stats"]


@functools.cache
def kept_bytes(name, *, remat):
    """Return the bytes that the forward pass keeps for the backward pass beside the parameters, without compiling."""
    model = named(name, remat=remat)

    def backward(variables):
        return jax.vjp(lambda params: loss_of(model, {**variables, "params": params})[0], variables["params"])[1]

    def bytes_of(tree):
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

    shapes = shapes_of(model)
    return bytes_of(jax.eval_shape(backward, shapes)) - bytes_of(shapes["params"])


@pytest.mark.parametrize("name", NAMES)
def test_less_is_kept_for_the_gradients(name):
    assert kept_bytes(name, remat=True) < 0.5 * kept_bytes(name, remat=False)


def test_only_the_input_of_a_motion_block_is_kept():
    with_block, without = (kept_bytes(name, remat=True) for name in ("msnet_tsm_r18", "tsm_r18"))
    frames, cells, channels = 2 * 4, 4 * 4, 16
    assert with_block - without == 4 * frames * cells * channels


@pytest.mark.parametrize("name", NAMES)
def test_an_evaluation_is_the_same_program_with_the_same_parameters(name):
    plain, again = named(name), named(name, remat=True)
    shapes = shapes_of(plain)
    assert shapes_of(again) == shapes

    def program(model):
        return str(jax.make_jaxpr(lambda variables: model.apply(variables, jnp.asarray(CLIPS), train=False))(shapes))

    assert program(again) == program(plain)


def test_loss_gradients_and_statistics_are_the_same():
    variables = random_variables(short(remat=False), CLIPS)

    def run(model):
        step = jax.value_and_grad(lambda params: loss_of(model, {**variables, "params": params}), has_aux=True)
        return jax.jit(step, compiler_options={"xla_backend_optimization_level": 0})(variables["params"])

    expected, got = run(short(remat=False)), run(short(remat=True))
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert_close(one, other, kind="block")


def test_the_displacement_is_the_same():
    variables = random_variables(short(remat=False), CLIPS)

    def features(model):
        options = {"train": True, "mutable": ["batch_stats"], "rngs": {"dropout": jax.random.key(1)}}
        (_, aux), _ = jax.jit(lambda variables: model.apply(variables, CLIPS, method="features", **options))(variables)
        return aux

    expected, got = features(short(remat=False)), features(short(remat=True))
    assert got.keys() == expected.keys()
    assert_close(got["displacement"], expected["displacement"], kind="block")
    assert np.abs(got["displacement"]).max() > 0.01
