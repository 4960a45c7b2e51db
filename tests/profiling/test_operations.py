"""Operations counted from shapes: the authors' own counts, torchvision's, counts by hand and of the traced program."""

import json
import math
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import motion_jax
from motion_jax.backbones import ResNet
from motion_jax.blocks import (
    CorrelationBlock,
    CorrespondenceProposal,
    LocalSelfAttention,
    MotionSqueeze,
    MultiHeadSelfAttention,
    NonLocal,
    Selfy,
)
from motion_jax.layers import BatchNorm, Conv
from motion_jax.models import VideoClassifier
from motion_jax.profiling.operations import Operations, count, xla_flops

AUTHORS = json.loads((pathlib.Path(__file__).parents[1] / "goldens" / "flops.json").read_text())["table"]
NETWORKS = {"TSM": "tsm", "MSNet": "msnet_tsm", "SELFY": "selfynet_tsm"}
COLUMNS = {
    "conv_fc": "conv_fc_MAC_G",
    "bn": "bn_4perelem_G",
    "correlation": "correlation_2Cminus1_G",
    "total": "thop_total_G",
}


@pytest.mark.parametrize("row", AUTHORS)
def test_the_authors_counts(row):
    network, frames, *length = row.split()
    family, depth = network.split("-")
    fields = {"window": (9, 9, 9)} if length == ["L9"] else {}
    model = motion_jax.build_model(f"{NETWORKS[family]}_{depth.lower()}", num_classes=174, **fields)
    complexity = count(model, (int(frames.removesuffix("f")), 224, 224, 3))
    for kind, column in COLUMNS.items():
        assert round(getattr(complexity.operations, kind) / 1e9, 3) == AUTHORS[row][column], kind
    assert round(complexity.operations.other / 1e9, 4) == AUTHORS[row]["other_G"]
    # Theirs include the 256 parameters of a bn2 that nothing uses.
    assert sum(complexity.parameters.values()) / 1e6 == pytest.approx(AUTHORS[row]["params_M"], abs=0.0005 + 256 / 1e6)


def test_what_the_explanations_say():
    gflops = {
        name: count(motion_jax.build_model(name, num_classes=174), (8, 224, 224, 3))
        for name in ("nonlocal_tsm_r50", "tsm_r50")
    }
    one_product = (8 * 28 * 28) ** 2 * 256 / 1e9
    assert gflops["nonlocal_tsm_r50"].operations.correlation / 1e9 == 2 * one_product
    assert f"{one_product:.3f}" == "10.071"
    assert f"{gflops['nonlocal_tsm_r50'].gflops - one_product:.1f}" == "46.5"
    assert f"{gflops['tsm_r50'].gflops:.3f}" == "33.056"
    sixteen = count(motion_jax.build_model("tsm_r50", num_classes=400), (16, 224, 224, 3)).operations
    assert [f"{kind / 1e9:.1f}" for kind in (sixteen.conv_fc, sixteen.bn)] == ["65.4", "0.7"]
    assert f"{100 * (1 - 15.0 / 20.4):.0f}" == "26"


# Of one image and 1000 classes, in 10^9 multiply-accumulates, as torchvision's documentation gives them.
TORCHVISION = {"r18": 1.814, "r34": 3.664, "r50": 4.089, "r101": 7.801, "mobilenetv2": 0.301}


@pytest.mark.parametrize("kind", TORCHVISION)
def test_backbones_cost_what_torchvision_says(kind):
    complexity = count(motion_jax.build_model(f"tsn_{kind}", num_classes=1000), (1, 224, 224, 3))
    assert round(complexity.operations.conv_fc / 1e9, 3) == TORCHVISION[kind]


class Apply(nn.Module):
    """A layer as a network."""

    layer: nn.Module

    def __call__(self, x, *, train):
        return self.layer(x)


# Outputs times what each costs, written out; the input is (3, 9, 7, 4).
@pytest.mark.parametrize(
    ("layer", "operations"),
    [
        (Conv(6, (3, 3), padding=(1, 1)), 3 * 9 * 7 * 6 * (9 * 4)),
        (nn.Conv(6, (3, 3), 2, 1), 3 * 5 * 4 * 6 * (9 * 4 + 1)),
        (Conv(4, (3, 3), (2, 2), (1, 1), depthwise=True), 3 * 5 * 4 * 4 * 9),
        (Conv(6, (3, 1, 1)), 1 * 9 * 7 * 6 * (3 * 4)),
        (Conv(6, (1, 1), (2, 2)), 3 * 5 * 4 * 6 * 4),
        (nn.Conv(6, (3, 3), feature_group_count=2), 3 * 9 * 7 * 6 * (9 * 2 + 1)),
        (nn.Dense(5), 3 * 9 * 7 * 5 * (4 + 1)),
    ],
    ids=["padded", "strided_bias", "depthwise", "over_time", "1x1_strided", "flax_grouped", "flax_dense"],
)
def test_layers_by_hand(layer, operations):
    assert count(Apply(layer), (3, 9, 7, 4)).operations == Operations(conv_fc=operations)


def test_batch_norm_costs_four_per_element():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return nn.BatchNorm(use_running_average=not train)(BatchNorm()(x, train=train))

    assert count(Net(), (3, 9, 7, 4)).operations == Operations(bn=2 * 4 * 3 * 9 * 7 * 4)


def test_a_layer_called_twice_counts_twice_and_has_its_parameters_once():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            layer = Conv(4, (1, 1), name="shared")
            return layer(layer(x))

    complexity = count(Net(), (2, 5, 5, 4))
    assert complexity.operations.conv_fc == 2 * 2 * 25 * 4 * 4
    assert complexity.parameters == {"shared": 16}


def products(block, shape):
    """Multiply-accumulates of every matrix product and convolution of the traced program."""

    def of(jaxpr):
        total = 0
        for equation in jaxpr.eqns:
            inputs = [variable.aval.shape for variable in equation.invars]
            if equation.primitive.name == "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                total += equation.outvars[0].aval.size * math.prod(inputs[0][axis] for axis in contracted)
            elif equation.primitive.name == "conv_general_dilated":
                total += equation.outvars[0].aval.size * math.prod(inputs[1][:-1])
            if equation.primitive.name == "cond":  # forms for several platforms; the last is the general one
                total += of(equation.params["branches"][-1].jaxpr)
            for value in equation.params.values():
                if inner := getattr(value, "jaxpr", value if hasattr(value, "eqns") else None):
                    total += of(inner)
        return total

    clip = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(lambda x: block.init(jax.random.key(0), x, train=False), clip)
    return of(jax.make_jaxpr(lambda v, x: block.apply(v, x, train=False))(variables, clip).jaxpr)


@pytest.mark.parametrize(
    "block",
    [
        NonLocal(),
        NonLocal(channels=5),
        MultiHeadSelfAttention(),
        MultiHeadSelfAttention(heads=2, head_channels=3, distances=(1, 2, 4)),
        CorrespondenceProposal(),
        CorrespondenceProposal(k=3, widths=(7,)),
    ],
    ids=lambda block: type(block).__name__,
)
@pytest.mark.parametrize("shape", [(4, 5, 3, 8), (1, 4, 4, 6)])
def test_dense_blocks_count_the_products_of_their_program(block, shape):
    operations = count(block, shape).operations
    assert operations.conv_fc + operations.correlation == products(block, shape)


def test_softmax_of_attention():
    positions = 4 * 5 * 3
    assert count(NonLocal(), (4, 5, 3, 8)).operations.other == positions * (3 * positions - 1)
    assert count(MultiHeadSelfAttention(heads=2), (4, 5, 3, 8)).operations.other == 2 * positions * (3 * positions - 1)
    # 5x3 cells become 3x2.
    operations = count(LocalSelfAttention(window=(3, 5, 7)), (4, 5, 3, 8)).operations
    assert operations.other == 4 * 3 * 2 * (3 * 3 * 5 * 7 - 1)
    cosine, attends = (
        count(Selfy(window=(3, 5, 7), similarity=s), (4, 5, 3, 8)) for s in ("cosine", "embedded_gaussian")
    )
    assert (cosine.operations.other, attends.operations.other) == (0, operations.other)


def test_local_self_attention_by_hand():
    # At each of 4 * 3 * 2 positions: 105 cells of 6 channels, once for the key and once for the value; and the query
    # with the 3 + 5 + 7 embeddings.
    operations = count(LocalSelfAttention(window=(3, 5, 7), channels=6), (4, 5, 3, 8)).operations
    assert operations.correlation == 4 * 3 * 2 * 6 * (2 * 105 + 15)


@pytest.mark.parametrize("groups", [1, 2])
def test_correlation_block_by_hand(groups):
    # A similarity of c channels: c products, c weights, c - 1 sums.
    operations = count(CorrelationBlock(radius=2, channels=6, groups=groups), (4, 5, 3, 8)).operations
    assert operations.correlation == 4 * 5 * 3 * 25 * groups * (3 * (6 // groups) - 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"window": (3, 5, 7)},
        {"window": (3, 5, 5), "offsets": (1,), "extraction": "soft_argmax"},
        {"window": (3, 5, 5), "offsets": (-2, 0, 1), "stride": 1, "enlarge": 2},
        {"window": (1, 5, 5), "stride": 4, "channels": 6},
    ],
)
def test_selfy_compares_as_often_as_it_says(fields):
    block, shape = Selfy(**{"channels": 10, **fields}), (4, 7, 9, 8)
    clip = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    sown = jax.eval_shape(lambda x: block.init(jax.random.key(0), x, train=False, mutable=True), clip)["intermediates"]
    assert count(block, shape).operations.correlation == sown["stss"].size * (2 * block.channels - 1)


@pytest.mark.parametrize("block", [Selfy(window=(3, 5, 5)), Selfy(window=(3, 5, 5), enlarge=2), LocalSelfAttention()])
def test_the_transposed_convolution_counts_at_every_cell_of_its_output(block):
    complexity = count(block, (4, 7, 9, 8))
    cells = 4 * (7 * 9) * getattr(block, "enlarge", 1) ** 2
    own = complexity.stages[type(block).__name__].conv_fc
    assert own > 0
    assert own + complexity.stages["upsample_conv"].conv_fc == cells * 8 * block.integration_width


@pytest.mark.parametrize(
    ("fields", "frames", "vectors", "channels", "window"),
    [
        ({}, 4, 3, 64, 15),
        ({"directions": "forward_and_backward", "radius": 2}, 4, 6, 64, 5),
        ({"reduction": None, "dilation": 2, "radius": 1}, 4, 3, 8, 3),
        ({}, 1, 0, 64, 15),
    ],
)
def test_motion_squeeze_by_hand(fields, frames, vectors, channels, window):
    operations = count(MotionSqueeze(**fields), (frames, 5, 3, 8)).operations
    assert operations.correlation == vectors * 5 * 3 * window**2 * (2 * channels - 1)


@pytest.mark.parametrize(
    "block",
    [NonLocal(), NonLocal(channels=6), MultiHeadSelfAttention(distances=(3, 6, 8)), CorrespondenceProposal()],
    ids=lambda block: type(block).__name__,
)
def test_a_block_that_declares_no_cost_is_counted_from_its_trace(block, monkeypatch):
    model = VideoClassifier(ResNet((1, 1, 1, 1), False, width=32, blocks={"res3": block}), num_classes=3)
    shape = (4, 56, 72, 3)
    stated = count(model, shape)
    assert stated.traced == ()
    monkeypatch.setattr(type(block), "operations", None)
    traced = count(model, shape)
    assert traced.traced == ("res3_motion",)
    assert list(traced.stages) == list(stated.stages)
    assert traced.parameters == stated.parameters
    for complexity in (stated, traced):
        assert complexity.stages["res3_motion"].correlation == stated.stages["res3_motion"].correlation > 0
    # The rest of the network does not change, and neither do the block's layers; only the softmax is not a product.
    without = {name: each for name, each in traced.stages.items() if name != "res3_motion"}
    assert without == {name: each for name, each in stated.stages.items() if name != "res3_motion"}
    assert traced.stages["res3_motion"].conv_fc == stated.stages["res3_motion"].conv_fc


@pytest.mark.parametrize("block", [MotionSqueeze(radius=2), Selfy(window=(3, 5, 5))], ids=lambda b: type(b).__name__)
def test_a_traced_similarity_counts_about_half(block, monkeypatch):
    """C products per similarity where the papers count 2 C - 1, in the form of this platform."""
    stated = count(block, (4, 7, 9, 8)).operations.correlation
    monkeypatch.setattr(type(block), "operations", None)
    complexity = count(block, (4, 7, 9, 8))
    assert complexity.traced == (type(block).__name__,)
    assert 0.4 < complexity.operations.correlation / stated < 2


def test_products_in_loops_and_conditionals_of_a_network_of_ones_own():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            x = nn.Dense(6, name="head")(x.mean(axis=(1, 2, 3)))
            weights = jnp.ones((6, 6))
            x, _ = jax.lax.scan(lambda x, _: (x @ weights, None), x, length=5)
            x = jax.lax.cond(x.sum() > 0, lambda x: x @ weights @ weights, lambda x: x, x)
            unused = x @ weights  # dead code
            return jax.jit(lambda x: x @ weights)(x) + 0 * unused.shape[0]

    complexity = count(Net(), (2, 4, 4, 3))
    assert complexity.traced == ("Net",)
    assert complexity.stages["Net"] == Operations(correlation=(5 + 2 + 1) * 36)
    assert complexity.stages["head"].conv_fc == 6 * 4


def test_growth_with_the_number_of_frames():
    def correlation(block, frames):
        return count(block, (frames, 14, 14, 32)).operations.correlation

    assert correlation(CorrespondenceProposal(), 16) == 4 * correlation(CorrespondenceProposal(), 8)
    assert correlation(Selfy(), 16) == 2 * correlation(Selfy(), 8)
    assert correlation(MotionSqueeze(), 16) * 7 == 15 * correlation(MotionSqueeze(), 8)


@pytest.mark.parametrize(
    ("name", "sites"),
    [
        ("msnet_tsm_r18", ("pool1", "res4")),
        ("selfynet_tsm_r50", None),
        ("msnet_tsm_mobilenetv2", None),
        ("selfynet_i3d", ("inc_c", "inc_i")),
        ("cpnet_tsm_r18", None),
    ],
)
def test_stages_are_those_of_the_network(name, sites):
    model = motion_jax.build_model(name, num_classes=7, width=8, sites=sites)
    complexity = count(model, (2, 64, 64, 3))
    clip = jax.ShapeDtypeStruct((1, 2, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), clip)
    _, aux = jax.eval_shape(lambda v, x: model.apply(v, x, train=False, method="features"), variables, clip)
    own = [stage for stage in aux["stages"] if stage not in ("pool1", "stage1")]  # the stem, whose last pool is free
    assert list(complexity.stages) == ["stem", *own, "classifier"]
    assert complexity.parameters.keys() == complexity.stages.keys()
    assert min(complexity.parameters.values()) > 0
    assert sum(complexity.parameters.values()) == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def test_stages_of_resnet18_by_hand():
    stages = count(motion_jax.build_model("msnet_tsm_r18", num_classes=174), (1, 224, 224, 3)).stages
    assert stages["stem"] == Operations(conv_fc=112**2 * 64 * 49 * 3, bn=4 * 112**2 * 64)
    assert stages["res2"] == Operations(conv_fc=4 * 56**2 * 64 * 9 * 64, bn=4 * 4 * 56**2 * 64)
    assert stages["res3"].conv_fc == 28**2 * 128 * (9 * 64 + 64 + 3 * 9 * 128)
    assert stages["classifier"] == Operations(conv_fc=174 * 513, other=512 * 49)


def test_stages_of_the_other_backbones_by_hand():
    def conv_bn(inputs, outputs, cells=1):
        return cells * inputs * outputs + 2 * outputs

    mobilenet = count(motion_jax.build_model("tsm_mobilenetv2", num_classes=174), (1, 32, 32, 3)).parameters
    assert mobilenet["stem"] == conv_bn(3, 32, 9)
    assert mobilenet["stage2"] == (
        (conv_bn(1, 32, 9) + conv_bn(32, 16))
        + (conv_bn(16, 96) + conv_bn(1, 96, 9) + conv_bn(96, 24))
        + (conv_bn(24, 144) + conv_bn(1, 144, 9) + conv_bn(144, 24))
    )
    i3d = count(motion_jax.build_model("i3d", num_classes=174), (1, 32, 32, 3)).parameters
    assert i3d["stem"] == conv_bn(3, 64, 49) + conv_bn(64, 64) + conv_bn(64, 192, 27)
    assert i3d["inc_a"] == conv_bn(192, 64 + 96 + 16 + 32) + conv_bn(96, 128, 27) + conv_bn(16, 32, 27)


def test_it_depends_on_classes_and_size():
    def operations(num_classes, size):
        return count(motion_jax.build_model("tsm_r18", num_classes=num_classes), (8, size, size, 3)).operations

    assert operations(275, 224).conv_fc - operations(174, 224).conv_fc == 8 * 101 * 513
    assert operations(174, 448).bn == 4 * operations(174, 224).bn


def test_a_network_of_ones_own():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            x = nn.Conv(16, (3, 3), strides=2, use_bias=False, name="patches")(x)
            x = MotionSqueeze(reduction=8, radius=1, name="motion")(x, train=train)
            return nn.Dense(5, name="head")(x.mean(axis=(1, 2, 3)))

    complexity = count(Net(), (4, 16, 16, 3))
    assert list(complexity.stages) == ["patches", "motion", "head"]
    assert complexity.stages["patches"].conv_fc == 4 * 64 * 16 * 27
    assert complexity.stages["motion"].correlation == 3 * 64 * 9 * 15
    assert complexity.stages["head"].conv_fc == 5 * 17


def test_xla_counts_a_multiplication_and_an_addition():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return Conv(16, (1, 1))(x)

    assert xla_flops(Net(), (4, 8, 8, 32)) == 2 * count(Net(), (4, 8, 8, 32)).operations.conv_fc


def test_nothing_is_computed():
    # A clip that no machine could hold.
    assert np.isfinite(count(motion_jax.build_model("tsm_r18", num_classes=2), (1024, 4096, 4096, 3)).gflops)
