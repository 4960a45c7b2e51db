"""Causal networks on whole clips and one frame at a time."""

import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from official import arrays, description, generator, normalise, state_dict

import motion_jax
from motion_jax import streaming
from motion_jax.blocks import MotionSqueeze, Selfy
from motion_jax.profiling import operations
from motion_jax.weights.torch_names import TorchNames

FRAMES, SIZE = 7, 64
# Name, fields of the block.
NETWORKS = [
    ("tsm_mobilenetv2", {}),
    ("msnet_tsm_r18", {"radius": 2}),
    ("selfynet_tsn_r18", {"window": (3, 3, 3), "similarity": "embedded_gaussian", "temporal_padding": "edge"}),
]
MORE = [
    ("tsn_r18", {}),
    ("tsm_r18", {}),
    ("msnet_tsm_mobilenetv2", {"radius": 2, "directions": "forward_and_backward"}),
    ("msnet_tsn_r18", {"radius": 2, "sites": ("res2", "res4")}),
    ("selfynet_tsm_r18", {"window": (5, 3, 3)}),
    ("selfynet_tsm_mobilenetv2", {"window": (3, 3, 5), "temporal_padding": "edge"}),
    ("selfynet_tsm_r18", {"window": (3, 3, 3), "similarity": "embedded_gaussian"}),
    ("selfynet_tsn_r18", {"window": (1, 3, 3)}),
    ("selfynet_tsn_r18", {"window": (1, 3, 3), "offsets": (-3, -1), "similarity": "dot"}),
]


def network(name, *, size=SIZE, **fields):
    """A causal network with random weights in which every part has an effect."""
    model = motion_jax.build_model(name, num_classes=5, width=8, causal=True, dropout=0.0, **fields)
    frame = jnp.zeros((1, 1, size, size, 3), jnp.uint8)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), frame, train=False))
    rng = np.random.default_rng(1)

    def value(path, like):
        leaf = path[-1].key
        noise = rng.standard_normal(like.shape)
        if leaf == "kernel":
            noise *= np.sqrt(2 / np.prod(like.shape[:-1]))
        values = {"scale": 0.7 + 0.1 * noise, "var": 1 + 0.1 * np.abs(noise), "kernel": noise}
        return jnp.asarray(values.get(leaf, 0.1 * noise), like.dtype)

    return model, jax.tree_util.tree_map_with_path(value, shapes)


def random_frames(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def frame_logits(model, variables, clips):
    apply = jax.jit(lambda variables, clips: model.apply(variables, clips, train=False, method="features"))
    return np.asarray(apply(variables, clips)[1]["frame_logits"])


def stream(model, variables, clips):
    """The logits of each frame (b, t, k), one step after another."""
    state = streaming.init(model, variables, batch=len(clips), size=clips.shape[2:4])
    found = []
    for time in range(clips.shape[1]):
        logits, state = streaming.step(model, variables, state, clips[:, time])
        found.append(logits)
    return np.stack(found, axis=1)


@pytest.mark.parametrize(("name", "fields"), [*NETWORKS, *(pytest.param(*row, marks=pytest.mark.long) for row in MORE)])
def test_a_stream_equals_the_clip_and_looks_at_no_later_frame(name, fields):
    model, variables = network(name, **fields)
    clips = random_frames(2, FRAMES, SIZE, SIZE)
    whole = frame_logits(model, variables, clips)
    before = streaming._logits._cache_size()
    found = stream(model, variables, clips)
    assert streaming._logits._cache_size() == before + 1
    np.testing.assert_allclose(found, whole, atol=1e-5 * np.abs(whole).max())
    # Frames before a change stay as they are, and those after it change.
    changed = clips.copy()
    changed[:, 4] = 255 - changed[:, 4]
    other = frame_logits(model, variables, changed)
    np.testing.assert_array_equal(other[:, :4], whole[:, :4])
    assert (np.abs(other[:, 4] - whole[:, 4]).max(axis=-1) > 2e-5 * np.abs(whole).max()).all()


@pytest.mark.parametrize(
    ("name", "fields"),
    [NETWORKS[1], *(pytest.param(*row, marks=pytest.mark.long) for row in (NETWORKS[0], *MORE[1:7]))],
)
def test_a_frame_of_a_stream_costs_no_more_than_one_of_a_clip(name, fields):
    frames, shape = 8, (SIZE, SIZE, 3)
    model, variables = network(name, **fields)
    of_clip = operations.count(model, (frames, *shape)).gflops / frames
    assert operations.count(model, (1, *shape)).gflops <= 1.001 * of_clip
    state = streaming.init(model, variables, size=shape[:2])
    compiled = streaming._logits.lower(model, variables, state, jnp.zeros((1, *shape))).compile()
    assert compiled.cost_analysis()["flops"] <= 1.05 * operations.xla_flops(model, (frames, *shape)) / frames


@pytest.mark.long
def test_the_past_has_an_effect():
    for name, fields in (
        ("tsm_r18", {}),
        ("msnet_tsn_r18", {"radius": 2}),
        ("selfynet_tsn_r18", {"window": (3, 3, 3)}),
    ):
        model, variables = network(name, **fields)
        clips = random_frames(1, 3, SIZE, SIZE)
        changed = clips.copy()
        changed[:, 1] = 255 - changed[:, 1]
        whole, other = (frame_logits(model, variables, each)[:, 2] for each in (clips, changed))
        assert np.abs(whole - other).max() > 2e-5 * np.abs(whole).max(), name


def test_official_online_mobilenet():
    """Weights as the online code names them, without ``.net.``; frames of golden input A."""
    golden = arrays("stream_tsm_mobilenetv2")["A"]
    listed = description("names_tsm_mobilenetv2_t8")["names_shapes"]
    residual = [f"features.{block}.conv.7" for block in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)]
    weights = {name.replace(".net.", "."): value for name, value in state_dict(listed, residual).items()}
    model = motion_jax.build_model("tsm_mobilenetv2", num_classes=174, causal=True, dropout=0.0)
    variables = motion_jax.load_torch(weights, model)
    clips = normalise(generator(0).random((1, 4, 224, 224, 3), dtype=np.float32)).astype(np.float32)
    np.testing.assert_allclose(stream(model, variables, clips)[0], golden, atol=2e-4)


def test_official_names_of_the_online_network_have_no_wrapper():
    model = motion_jax.build_model("tsm_mobilenetv2", num_classes=3, width=8, causal=True, dropout=0.0)
    names = TorchNames.of(model)
    assert names.full("features.3.conv.0.weight", prefix="") == "features.3.conv.0.weight"
    clip = TorchNames.of(motion_jax.build_model("tsm_mobilenetv2", num_classes=3))
    assert clip.full("features.3.conv.0.weight", prefix="") == "features.3.conv.0.net.weight"


@pytest.mark.parametrize("name", ["tsm_r18", "msnet_tsm_r18", "selfynet_tsm_r18"])
def test_parameters_are_those_of_the_clip_network(name):
    def shapes(**options):
        model = motion_jax.build_model(name, num_classes=5, width=8, **options)
        clips = jnp.zeros((1, 2, 32, 32, 3))
        return jax.tree.map(jnp.shape, jax.eval_shape(lambda: model.init(jax.random.key(0), clips, train=False)))

    assert shapes(causal=True) == shapes()


def block_output(block, x, *, seed=0):
    # Without jax.jit the forms share the compiled operations.
    variables = block.init(jax.random.key(seed), x[:, :2], train=False)
    return block.apply(variables, x, train=False, mutable=["intermediates"])


def test_motion_squeeze_takes_the_motion_from_the_frame_before():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4, 6, 5, 8)), jnp.float32)
    fields = {"radius": 2, "reduction": 4, "fusion": "motion", "directions": "forward_and_backward"}
    _, seen = block_output(MotionSqueeze(causal=True, **fields), x)
    # With the first frame twice, pair t of the block that looks ahead is frames t - 1 and t of the clip.
    _, other = block_output(
        MotionSqueeze(
            **fields,
        ),
        jnp.concatenate([x[:, :1], x], axis=1),
    )
    seen, other = seen["intermediates"], other["intermediates"]
    np.testing.assert_allclose(seen["displacement"], other["displacement"][:, 1:], atol=1e-5)
    assert seen["displacement"].shape == (2, 3, 6, 5, 2)
    np.testing.assert_allclose(seen["confidence_backward"], other["confidence_backward"][:, 1:], atol=1e-5)
    forward = {**fields, "directions": "forward"}
    causal, _ = block_output(MotionSqueeze(causal=True, **forward), x)
    ahead, _ = block_output(MotionSqueeze(**forward), jnp.concatenate([x[:, :1], x], axis=1))
    np.testing.assert_allclose(causal, ahead[:, :-1], atol=1e-5)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "embedded_gaussian"])
def test_selfy_compares_with_frames_before(similarity):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4, 6, 5, 8)), jnp.float32)
    fields = {"channels": 4, "similarity": similarity}
    _, seen = block_output(Selfy(window=(3, 3, 5), causal=True, **fields), x)
    _, other = block_output(Selfy(window=(3, 3, 5), offsets=(-2, -1, 0), **fields), x)
    np.testing.assert_allclose(seen["intermediates"]["stss"], other["intermediates"]["stss"], atol=1e-6)
    # Repeating the first frame pads the clip.
    _, seen = block_output(Selfy(window=(3, 3, 5), causal=True, temporal_padding="edge", **fields), x)
    longer = jnp.concatenate([x[:, :1], x[:, :1], x], axis=1)
    _, other = block_output(Selfy(window=(3, 3, 5), offsets=(-2, -1, 0), **fields), longer)
    np.testing.assert_allclose(seen["intermediates"]["stss"], other["intermediates"]["stss"][:, 2:], atol=1e-6)


@pytest.mark.parametrize("name", ["i3d", "msnet_i3d", "cpnet_tsm_r18", "corrblock_tsm_r50", "nonlocal_tsm_r18"])
def test_what_cannot_be_causal_says_so(name):
    with pytest.raises(ValueError, match=f"{name} cannot be causal: .* has no causal form"):
        motion_jax.build_model(name, num_classes=2, causal=True)


def test_later_offsets_are_refused():
    with pytest.raises(ValueError, match=r"causal compares with frames before.*got offsets=\(0, 1\)"):
        motion_jax.build_model("selfynet_tsm_r18", num_classes=2, causal=True, offsets=(0, 1))


def test_a_network_that_looks_ahead_has_no_stream():
    model = motion_jax.build_model("tsm_r18", num_classes=2, width=8)
    with pytest.raises(ValueError, match=r"looks at later frames; a stream needs .*causal=True"):
        streaming.init(model, {}, size=(32, 32))
    with pytest.raises(ValueError, match="looks at later frames"):
        streaming.step(model, {}, {}, jnp.zeros((1, 32, 32, 3)))


def test_a_state_of_another_batch_or_size_is_refused():
    model, variables = network("tsm_r18")
    state = streaming.init(model, variables, batch=2, size=(32, 32))
    for frame in (jnp.zeros((1, 32, 32, 3)), jnp.zeros((2, 64, 64, 3))):
        with pytest.raises(ValueError, match=r"make it with streaming\.init for the batch and the size"):
            streaming.step(model, variables, state, frame)


def test_features_of_a_stream():
    model, variables = network("msnet_tsm_r18", radius=2)
    clips = random_frames(1, 3, SIZE, SIZE)
    _, aux = jax.jit(lambda: model.apply(variables, clips, train=False, method="features"))()
    state = streaming.init(model, variables, size=(SIZE, SIZE))
    for time in range(3):
        logits, seen, state = streaming.features(model, variables, state, clips[:, time])
        np.testing.assert_allclose(logits, aux["frame_logits"][:, time], atol=1e-4)
        if time:
            np.testing.assert_allclose(seen["displacement"][:, 0], aux["displacement"][:, time - 1], atol=1e-4)


def test_the_state_has_at_most_four_axes_and_lives_on():
    model, variables = network("selfynet_tsm_r18", window=(5, 3, 3))
    state = streaming.init(model, variables, batch=2, size=(SIZE, SIZE))
    assert {leaf.ndim for leaf in jax.tree.leaves(state)} <= {1, 2, 3, 4}
    frame = random_frames(2, SIZE, SIZE)
    once, _ = streaming.step(model, variables, state, frame)
    again, _ = streaming.step(model, variables, state, frame)
    np.testing.assert_array_equal(once, again)


def test_a_causal_network_trains():
    """Gradients of all parameters of a causal network on clips, with batch statistics."""
    model, variables = network("selfynet_tsm_r18", window=(3, 3, 3))
    clips = random_frames(2, 3, SIZE, SIZE)

    def loss(params):
        logits, _ = model.apply({**variables, "params": params}, clips, train=True, mutable=["batch_stats"])
        return jnp.square(logits).sum()

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(gradients))


@pytest.mark.long
@pytest.mark.parametrize("name", ["tsm_r18", "msnet_tsm_r18", "selfynet_tsm_r18"])
def test_ten_thousand_frames(name):
    """The clip in overlapping pieces: each starts as long before as the network looks back."""
    size, count, piece = 32, 10_000, 250
    fields = {"msnet_tsm_r18": {"radius": 1}, "selfynet_tsm_r18": {"window": (3, 3, 3)}}.get(name, {})
    model, variables = network(name, size=size, **fields)
    # Each of 8 residual blocks looks back one frame, the motion block two at most.
    back = 16
    frames = random_frames(count, size, size)
    state = streaming.init(model, variables, size=(size, size))
    found, memory = [], {}
    for time in range(count):
        logits, state = streaming.step(model, variables, state, frames[None, time])
        found.append(logits)
        if time % 1000 == 999:
            memory[time] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            found = [np.concatenate(found)]
    found = np.concatenate(found)
    apply = jax.jit(lambda variables, clip: model.apply(variables, clip, train=False, method="features"))
    worst, largest = 0.0, np.abs(found).max()
    for start in range(0, count, piece):
        first = max(start - back, 0)
        clip = frames[None, first : first + piece + back]
        whole = np.asarray(apply(variables, clip)[1]["frame_logits"][0])[start - first :][:piece]
        worst = max(worst, np.abs(whole - found[start : start + piece][: len(whole)]).max() / largest)
    assert worst < 1e-5
    assert memory[9999] - memory[1999] < 20_000, memory  # kilobytes
