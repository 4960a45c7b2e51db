"""The table of named models is complete, and each has exactly its parameters."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench import random_variables
from plain_networks import INCEPTION

import motion_jax

# With 174 classes, without the unused bn2; counted by the official code where reference.md names the network, else
# from published counts of the backbone (less a 1000-way classifier) and the size of the motion block.
BACKBONES = {
    "r18": 11_176_512,
    "r34": 21_284_672,
    "r50": 23_508_032,
    "r101": 42_500_160,
    "mobilenetv2": 3_504_872 - 1000 * 1281,
}
FEATURES = {"r18": 512, "r34": 512, "r50": 2048, "r101": 2048, "mobilenetv2": 1280, "i3d": 1024}
PARAMETERS = {
    "tsm_r18": 11_265_774,
    "msnet_tsm_r18": 11_286_759,
    "selfynet_tsm_r18": 11_764_346,
    "tsm_r50": 23_864_558,
    "msnet_tsm_r50": 23_935_463,
    "selfynet_tsm_r50": 24_830_842,
}

# Of the blocks that are compared, after res3 of ResNet-18 and of ResNet-50; their own tests count them by layers.
COMPARED = {
    "cpnet": (29_344, 461_440),
    "nonlocal": (33_024, 525_312),
    "mhsa": (168_768, 316_992),
    "localattention": (178_720, 314_656),
    "corrblock": (206_688, 875_904),
}

# Channels at the default site.
SITE = {"r18": 128, "r34": 128, "r50": 512, "r101": 512, "mobilenetv2": 32, "i3d": 480}


def conv_bn(inputs: int, outputs: int, cells: int = 1) -> int:
    """A convolution without bias, and the scale and bias of its BN."""
    return cells * inputs * outputs + 2 * outputs


def motion_squeeze(channels: int, *, reduced: bool) -> int:
    widths = (3, 16, 32, 64, channels)
    depthwise = sum(conv_bn(1, n, cells) for n, cells in zip(widths, (49, 9, 9, 9), strict=False))
    pointwise = sum(conv_bn(n, m) for n, m in itertools.pairwise(widths))
    return depthwise + pointwise + (conv_bn(channels, 64) if reduced else 0)


def selfy(channels: int) -> int:
    extraction = sum(conv_bn(n, m, 9) for n, m in itertools.pairwise((1, 4, 16, 64, 64)))
    integration = 3 * conv_bn(64, 64, 9) + conv_bn(5 * 64, 64, 9)
    return conv_bn(channels, 128, 9) + extraction + integration + conv_bn(64, channels)


def inception_i3d() -> int:
    count = conv_bn(3, 64, 49) + conv_bn(64, 64) + conv_bn(64, 192, 27)
    for inputs, one, reduce3, three, reduce5, five, pool in INCEPTION.values():
        count += conv_bn(inputs, one + reduce3 + reduce5 + pool) + conv_bn(reduce3, three, 27)
        count += conv_bn(reduce5, five, 27)
    return count


def parameters(model) -> int:
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), jnp.zeros((1, 2, 32, 32, 3)))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))


def expected(name: str) -> int:
    *family, kind = name.split("_")
    backbone = inception_i3d() if kind == "i3d" else BACKBONES[kind]
    block = 0
    if "msnet" in family:
        block = motion_squeeze(SITE[kind], reduced=kind != "mobilenetv2")
    elif "selfynet" in family:
        block = selfy(SITE[kind])
    elif compared := set(family) & set(COMPARED):
        block = COMPARED[compared.pop()][kind == "r50"]
    return backbone + 174 * FEATURES[kind] + 174 + block


def test_the_table_is_complete():
    depths = ("r18", "r34", "r50", "r101")
    names = {f"{b}{s}_{d}" for b in ("", "msnet_", "selfynet_") for s in ("tsn", "tsm") for d in depths}
    names |= {f"{family}_mobilenetv2" for family in ("tsn", "tsm", "msnet_tsm", "selfynet_tsm")}
    names |= {"i3d", "msnet_i3d", "selfynet_i3d"}
    names |= {f"{block}_tsm_{depth}" for block in COMPARED for depth in ("r18", "r50")}
    assert names == set(motion_jax.list_models())


@pytest.mark.parametrize("name", motion_jax.list_models())
def test_parameter_count(name):
    assert parameters(motion_jax.build_model(name, num_classes=174)) == PARAMETERS.get(name, expected(name))


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_published_counts_are_consistent_with_the_sums(name):
    assert expected(name) == PARAMETERS[name]


def test_two_i3d_streams_have_the_25_million_parameters_of_the_paper():
    """Table 1 of Quo Vadis: two networks for 400 classes, one on RGB and one on flow; ours has 1x7x7, not 7x7x7."""
    rgb = inception_i3d() + 401 * 1024 + 6 * conv_bn(3, 64, 49) - 6 * 2 * 64
    assert round(2 * rgb / 1e6) == 25


def test_a_stem_of_7x7():
    model = motion_jax.build_model("tsm_mobilenetv2", num_classes=174, stem_kernel=7)
    assert parameters(model) == expected("tsm_mobilenetv2") + 32 * 3 * (49 - 9)


@pytest.mark.parametrize(
    ("name", "site"), [("msnet_tsm_r50", "res3"), ("selfynet_tsm_mobilenetv2", "stage3"), ("msnet_i3d", "inc_b")]
)
def test_default_sites(name, site):
    default = motion_jax.build_model(name, num_classes=3)
    assert list(default.backbone.blocks) == [site]
    assert default == motion_jax.build_model(name, num_classes=3, sites=[site])


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("selfynet_tsm_r18", {"pool1": 56, "res2": 56, "res3": 28, "res4": 14, "res5": 7}),
        ("selfynet_tsm_mobilenetv2", {"stage1": 112, "stage2": 56, "stage3": 28, "stage4": 14, "stage5": 7}),
        ("selfynet_i3d", {"inc_a": 28, "inc_b": 28, "inc_c": 14, "inc_g": 14, "inc_h": 7, "inc_i": 7}),
    ],
)
def test_selfy_compares_at_14x14_at_every_site(name, sides):
    blocks = motion_jax.build_model(name, num_classes=3, sites=tuple(sides)).backbone.blocks
    assert {site: 14 * block.stride // block.enlarge for site, block in blocks.items()} == sides
    assert all(1 in (block.stride, block.enlarge) for block in blocks.values())


def test_width_means_the_same_share_of_every_backbone():
    widths = [motion_jax.build_model(n, num_classes=3, width=16).backbone.width for n in ("tsm_r18", "i3d")]
    assert widths == [16, 16]
    assert motion_jax.build_model("tsm_mobilenetv2", num_classes=3, width=16).backbone.width == 8


def test_options_of_the_backbone():
    model = motion_jax.build_model("tsm_r101", num_classes=3, shift_every=2)
    assert model.backbone.shift_every == 2
    model = motion_jax.build_model("msnet_tsm_mobilenetv2", num_classes=3, stem_kernel=7, radius=3)
    assert (model.backbone.stem_kernel, model.backbone.blocks["stage3"].radius) == (7, 3)
    assert model.backbone.blocks["stage3"].reduction is None


def test_selfynet_for_16_frames_has_its_count():
    model = motion_jax.build_model("selfynet_tsm_r50", num_classes=174, window=(9, 9, 9))
    assert parameters(model) == 24_978_298


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "msnet_r50"}, r"there is no model 'msnet_r50'; did you mean msnet_ts[nm]_r50 or msnet_ts[nm]_r50\?$"),
        ({"name": "x"}, r"there is no model 'x'; motion_jax.list_models\(\) gives all names$"),
        (
            {"name": "msnet_tsm_r18", "windw": 3},
            "msnet_tsm_r18 has no field windw; its block's fields are reduction, reduction_kernel, radius",
        ),
        ({"name": "tsm_r18", "radius": 3}, "tsm_r18 has no field radius; it has no motion block"),
        ({"name": "i3d", "radius": 3}, "i3d has no field radius; it has no motion block$"),
        ({"name": "tsm_r18", "stem_kernel": 7}, "tsm_r18 has no field stem_kernel; .* its backbone's are shift_every"),
        ({"name": "msnet_i3d", "sites": ("res3",)}, "msnet_i3d has no site res3; its sites are inc_a, inc_b"),
        ({"name": "msnet_tsm_mobilenetv2", "sites": ()}, r"sites must name .* such as \('stage3',\); got \(\)"),
        ({"name": "msnet_tsm_r18", "sites": ("res6",)}, "has no site res6; its sites are pool1, res2"),
        ({"name": "msnet_tsm_r18", "sites": "res3"}, "sites must name the stages"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        motion_jax.build_model(**arguments, num_classes=3)


SEVERAL = {
    "msnet_tsn_r18": ("pool1", "res2", "res4", "res5"),
    "selfynet_tsm_r50": ("pool1", "res2", "res4", "res5"),
    "selfynet_tsm_mobilenetv2": ("stage1", "stage2", "stage4", "stage5"),
    "msnet_i3d": ("inc_a", "inc_c", "inc_i"),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_any_site_several_sites_and_narrow_widths(name):
    model = motion_jax.build_model(name, num_classes=5, width=8, sites=SEVERAL[name])
    clips = jnp.asarray(np.random.default_rng(0).integers(0, 256, (1, 3, 32, 40, 3)), jnp.uint8)
    variables = random_variables(model, clips)
    logits, aux = jax.jit(lambda v, x: model.apply(v, x, train=False, method="features"))(variables, clips)
    assert logits.shape == (1, 5)
    assert tuple(aux["motion"]) == SEVERAL[name]
    key = "displacement" if name.startswith("msnet") else "stss"
    np.testing.assert_array_equal(aux[key], aux["motion"][SEVERAL[name][0]][key])
