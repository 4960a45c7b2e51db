import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench import evaluate, random_variables
from tolerance import assert_close

from motion_jax.blocks import MotionSqueeze, Selfy
from motion_jax.inspection import reference
from motion_jax.inspection.reference import Layers, integrate, relu, softmax, upsample

CLIP = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, 8, 8, 8)), jnp.float32)


@pytest.mark.parametrize(
    ("side", "strides", "last"), [(5, (1, 2, 1), 3), (9, (1, 2, 2), 3), (13, (1, 2, 2), 4), (17, (1, 2, 2), 5)]
)
def test_the_extraction_closes_every_window_of_table_3a(side, strides, last):
    """The last kernel takes what the strides leave, so that one cell remains (reference: the FLOPs of Table 3a)."""
    remaining = side
    for stride in strides:
        remaining = -(-remaining // stride)
    assert remaining == last
    block = Selfy(window=(1, side, side), channels=8)
    params = block.init(jax.random.key(0), CLIP, train=False)["params"]
    assert params["extraction3_conv"]["kernel"].shape == (last, last, 64, 64)


def test_the_block_starts_as_a_rectified_identity():
    block = Selfy(window=(3, 5, 5), channels=8)
    variables = block.init(jax.random.key(0), CLIP, train=False)
    np.testing.assert_array_equal(block.apply(variables, CLIP, train=False), np.maximum(CLIP, 0))


@pytest.mark.parametrize(
    ("fusion", "expected"), [("sum_of_relu", CLIP + 1), ("z_only", jnp.ones_like(CLIP)), ("v_only", CLIP)]
)
def test_fusions(fusion, expected):
    block = Selfy(window=(3, 5, 5), channels=8, fusion=fusion)
    variables = block.init(jax.random.key(0), CLIP, train=False)
    variables["params"]["upsample_bn"]["bias"] = jnp.ones(8)  # Z = 1 everywhere
    np.testing.assert_allclose(block.apply(variables, CLIP, train=False), expected)


def test_unknown_fusion():
    with pytest.raises(ValueError, match="fusion must be one of relu_of_sum"):
        Selfy(fusion="sum").init(jax.random.key(0), CLIP, train=False)


def test_the_upsampling_leaves_three_of_four_cells_to_the_statistics():
    """Zeros are inserted before BN: on odd cells the result is BN of zero."""
    block = Selfy(window=(3, 5, 5), channels=8, fusion="z_only")
    variables = block.init(jax.random.key(0), CLIP, train=False)
    variables["params"]["upsample_bn"] = {"scale": jnp.ones(8), "bias": jnp.full(8, 0.25)}
    variables["batch_stats"]["upsample_bn"]["mean"] = jnp.full(8, -0.5)
    y = block.apply(variables, CLIP, train=False)
    np.testing.assert_allclose(y[:, :, 1::2], 0.75, rtol=1e-4)
    np.testing.assert_allclose(y[:, :, :, 1::2], 0.75, rtol=1e-4)
    assert np.abs(y[:, :, ::2, ::2] - 0.75).max() > 0.01


FORMS = [
    {"window": (3, 5, 5)},
    {"window": (3, 3, 7), "similarity": "dot", "temporal_padding": "edge", "stride": 1, "fusion": "sum_of_relu"},
    {"window": (3, 5, 5), "extraction": "conv3d", "extraction_widths": (3, 5), "similarity": "embedded_gaussian"},
    {"window": (1, 3, 5), "offsets": (-3, 1), "extraction": "mlp", "similarity": "embedded_gaussian"},
    {"window": (3, 5, 5), "extraction": "soft_argmax", "temperature": 5.0, "fusion": "z_only"},
    {"window": (1, 3, 3), "extraction": "soft_argmax", "sigma": None, "offsets": (1,), "temporal_padding": "edge"},
    {"window": (3, 3, 3), "extraction": "mlp", "extraction_widths": (4,), "stride": 1, "enlarge": 2},
]


def window_softmax(scores, exists):
    """Window by window over the cells that exist."""
    weights = np.zeros_like(scores)
    for position in np.ndindex(*scores.shape[:4]):
        if (there := exists[position]).any():
            weights[position][there] = softmax(scores[position][there])
    return weights


def extract(block, layers, stss):
    """The extraction, (b, t, h, w, l, u, v) to (b, t, h, w, l, d)."""
    if block.extraction == "soft_argmax":
        scores = relu(stss)
        folded = scores.reshape(-1, 1, 1, *scores.shape[-2:])
        displacement = reference.kernel_soft_argmax(folded, sigma=block.sigma, temperature=block.temperature)
        displacement = displacement.reshape(*scores.shape[:5], 2)
        return np.concatenate([displacement, scores.max((-2, -1))[..., None]], axis=-1)
    count = sum(name.startswith("extraction") and name.endswith("conv") for name in layers.params)
    x = stss.reshape(*stss.shape[:5], -1) if block.extraction == "mlp" else stss[..., None]
    for index in range(count):
        names = f"extraction{index}_conv", f"extraction{index}_bn"
        if block.extraction == "mlp":
            x = layers.conv_bn_relu(x[..., None, None, :], *names)[..., 0, 0, :]
            continue
        inner = index < count - 1
        strides = [2 if inner and index and n >= 5 else 1 for n in x.shape[-3:-1]]
        over_l = [1] if block.extraction == "conv3d" else []
        x = layers.conv_bn_relu(x, *names, strides=over_l + strides, padding=over_l + [int(inner)] * 2)
    return x if block.extraction == "mlp" else x[..., 0, 0, :]


def enlarged(x, factor):
    """Bilinear, cell by cell: the centre of the new cell i lies at (i + 1/2) / factor - 1/2."""
    for axis in (2, 3):
        length = x.shape[axis]
        at = np.clip((np.arange(factor * length) + 0.5) / factor - 0.5, 0, length - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(5)])
        x = x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, length - 1), axis) * share
    return x


def formula(block, variables, x):
    """The block's formula."""
    layers = Layers(variables)
    large = enlarged(x, block.enlarge)
    y = layers.conv_bn_relu(large, "downsample_conv", "downsample_bn", strides=(block.stride, block.stride))
    where = {"window": block.window, "offsets": block.offsets, "temporal_padding": block.temporal_padding}
    if block.similarity == "embedded_gaussian":
        query, key = (layers.conv(y, f"embedding_{name}") for name in ("query", "key"))
        exists = reference.self_similarity(np.ones((*y.shape[:4], 1)), **where) > 0
        stss = window_softmax(reference.self_similarity(query, key, **where), exists)
    else:
        stss = reference.self_similarity(reference.l2_normalize(y) if block.similarity == "cosine" else y, **where)
    z = integrate(layers, np.moveaxis(extract(block, layers, stss), 4, 2))
    z = upsample(layers, z, shape=(*large.shape[:4], x.shape[-1]), stride=block.stride)
    f = block.enlarge
    z = sum(z[:, :, i::f, j::f] for i in range(f) for j in range(f)) / f**2
    fused = {"relu_of_sum": relu(z + x), "sum_of_relu": x + relu(z), "z_only": relu(z)}[block.fusion]
    return fused, stss


@pytest.mark.parametrize("shape", [(1, 3, 5, 6, 5), (1, 1, 4, 3, 5)])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_equals_the_formula(rng, form, shape):
    block = Selfy(**{"channels": 8, "integration_width": 4, **form})
    x = rng.standard_normal(shape).astype(np.float32)
    variables = random_variables(block, jnp.asarray(x), seed=rng)
    y, sown = evaluate(block, variables, jnp.asarray(x))
    expected, stss = formula(block, variables, x)
    assert_close(y, expected, kind="block")
    assert_close(sown["stss"], stss, kind="block")


def test_with_soft_argmax_and_the_next_frame_it_is_motion_squeeze_with_plain_convolutions(rng):
    """SELFY's supplement, section C: the same weights, one row of layers after the other, give the same features."""
    width = 8
    motion_squeeze = MotionSqueeze(reduction=16, radius=2, transformation="4x(3,3)", widths=(width,) * 3)
    selfy = Selfy(
        window=(1, 5, 5),
        offsets=(1,),
        channels=16,
        stride=1,
        integration_width=width,
        extraction="soft_argmax",
        temporal_padding="edge",
        fusion="sum_of_relu",
    )
    x = jnp.asarray(rng.standard_normal((2, 4, 6, 7, width)), jnp.float32)
    theirs = random_variables(motion_squeeze, x, seed=rng)
    ours = jax.tree.map(jnp.zeros_like, random_variables(selfy, x, seed=rng, positive=True))
    pairs = {"reduction_bn": "downsample_bn"}
    for index in range(4):
        pairs |= {f"transform{index + 1}_conv": f"integration{index}_conv"}
        pairs |= {f"transform{index + 1}_conv_bn": f"integration{index}_bn"}
    for collection, tree in theirs.items():
        for their_name, our_name in pairs.items():
            if their_name in tree:
                ours[collection][our_name] = tree[their_name]
    # A 1x1 convolution is a 3x3 one with zeros around; what MotionSqueeze lacks is made the identity.
    reduction = theirs["params"]["reduction_conv"]["kernel"]
    ours["params"]["downsample_conv"]["kernel"] = jnp.pad(reduction, [(1, 1), (1, 1), (0, 0), (0, 0)])
    ours["params"]["upsample_conv"]["kernel"] = jnp.eye(width)[None, None]
    ours["params"]["upsample_bn"]["scale"] = jnp.full(width, np.sqrt(1 + 1e-5))
    ours["batch_stats"]["upsample_bn"]["var"] = jnp.ones(width)

    def outcome(block, variables):
        def loss(x, train):
            y, updates = block.apply(variables, x, train=train, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(y)), (y, updates["batch_stats"])

        # The made-up identity holds with fixed statistics only, so of training those of the shared layers are compared.
        (_, (y, _)), gradient = jax.value_and_grad(loss, has_aux=True)(x, False)
        return y, gradient, loss(x, True)[1][1]

    y, gradient, statistics = jax.jit(lambda v: outcome(selfy, v))(ours)
    expected, expected_gradient, expected_statistics = jax.jit(lambda v: outcome(motion_squeeze, v))(theirs)
    assert np.abs(expected - x).max() > 0.1
    assert_close(y, expected, kind="block")
    assert_close(gradient, expected_gradient, kind="block")
    for their_name, our_name in pairs.items():
        for name, value in expected_statistics.get(their_name, {}).items():
            assert_close(statistics[our_name][name], value, kind="block")


@pytest.mark.parametrize("offsets", [(0,), (1,), (-1, 0, 1), (-2, -1, 0, 1, 2), (-3, -2, -1, 0, 1, 2, 3)])
def test_any_offsets_of_the_paper(offsets):
    block = Selfy(window=(1, 3, 3), offsets=offsets, channels=4, integration_width=4)
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), CLIP, train=False)["params"])
    assert shapes["integration3_conv"]["kernel"].shape == (3, 3, 4 * len(offsets), 4)


def test_multi_channel_kernels_of_table_3d():
    block = Selfy(extraction="conv3d", channels=4)
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), CLIP, train=False)["params"])
    kernels = [shapes[f"extraction{index}_conv"]["kernel"].shape for index in range(4)]
    assert kernels == [(3, 3, 3, 1, 4), (3, 3, 3, 4, 16), (3, 3, 3, 16, 64), (3, 3, 3, 64, 64)]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"extraction": "lstm"}, "extraction must be one of conv, conv3d, mlp, soft_argmax"),
        ({"similarity": "l2"}, "similarity must be one of cosine, embedded_gaussian, dot"),
        ({"temporal_padding": "wrap"}, "temporal_padding must be one of zero, edge, replicate"),
        ({"extraction": "soft_argmax", "window": (1, 3, 5)}, "needs a window with U = V of 3 or more"),
    ],
)
def test_bad_forms(form, message):
    with pytest.raises(ValueError, match=message):
        Selfy(**form).init(jax.random.key(0), CLIP, train=False)


@pytest.mark.parametrize(("extraction", "rounded"), [("conv", True), ("soft_argmax", False)])
def test_similarities_are_rounded_only_where_the_extraction_computes_in_bfloat16(rng, extraction, rounded):
    """What is sown is float32 either way; a soft-argmax at temperature 100 needs all of it."""
    block = Selfy(window=(3, 3, 3), channels=16, stride=1, extraction=extraction, dtype=jnp.bfloat16)
    x = jnp.asarray(rng.standard_normal((1, 2, 4, 5, 8)), jnp.bfloat16)
    variables = random_variables(block, x, seed=rng, positive=True)
    stss = block.apply(variables, x, train=False, mutable=["intermediates"])[1]["intermediates"]["stss"]
    assert stss.dtype == jnp.float32
    assert np.array_equal(stss, stss.astype(jnp.bfloat16)) == rounded


def test_copies_of_the_features_for_every_offset_are_not_kept_for_the_gradient(rng):
    """Of the 4 frames' 5 neighbours each, 20 pairs; what a pull-back holds are its leaves."""
    block = Selfy(window=(5, 3, 3), channels=16, stride=1, extraction="mlp", extraction_widths=(4,))
    x = jnp.asarray(rng.standard_normal((1, 4, 6, 7, 8)), jnp.float32)
    variables = random_variables(block, x, seed=rng, positive=True)
    _, pull_back = jax.vjp(lambda x: block.apply(variables, x, train=False), x)
    kept = [leaf.shape for leaf in jax.tree.leaves(pull_back)]
    assert (1, 4, 6, 7, 16) in kept
    assert not [shape for shape in kept if np.prod(shape) == 20 * 6 * 7 * 16]
