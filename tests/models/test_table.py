"""The table of named models is complete, and each has exactly its parameters."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import motion_jax

# With 174 classes, without the unused bn2; counted by the official code where reference.md names the network, else
# from torchvision's published counts (ResNet less its 1000-way classifier) and the size of the motion block.
RESNETS = {"r18": 11_176_512, "r34": 21_284_672, "r50": 23_508_032, "r101": 42_500_160}
FEATURES = {"r18": 512, "r34": 512, "r50": 2048, "r101": 2048}
PARAMETERS = {
    "tsm_r18": 11_265_774,
    "msnet_tsm_r18": 11_286_759,
    "selfynet_tsm_r18": 11_764_346,
    "tsm_r50": 23_864_558,
    "msnet_tsm_r50": 23_935_463,
    "selfynet_tsm_r50": 24_830_842,
}


def parameters(model) -> int:
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), jnp.zeros((1, 2, 32, 32, 3)))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))


def expected(name: str) -> int:
    *family, depth = name.split("_")
    plain = RESNETS[depth] + 174 * FEATURES[depth] + 174
    like = "r18" if depth in ("r18", "r34") else "r50"
    block = {"msnet": "msnet_tsm", "selfynet": "selfynet_tsm"}.get(family[0])
    return plain + (PARAMETERS[f"{block}_{like}"] - PARAMETERS[f"tsm_{like}"] if block else 0)


def test_the_table_is_complete():
    depths = ("r18", "r34", "r50", "r101")
    names = {f"{b}{s}_{d}" for b in ("", "msnet_", "selfynet_") for s in ("tsn", "tsm") for d in depths}
    assert names <= set(motion_jax.list_models())


@pytest.mark.parametrize("name", motion_jax.list_models())
def test_parameter_count(name):
    assert parameters(motion_jax.build_model(name, num_classes=174)) == PARAMETERS.get(name, expected(name))


def test_the_published_counts_are_consistent_with_torchvision():
    assert expected("tsm_r18") == PARAMETERS["tsm_r18"]
    assert expected("tsm_r50") == PARAMETERS["tsm_r50"]


def test_selfynet_for_16_frames_has_its_count():
    model = motion_jax.build_model("selfynet_tsm_r50", num_classes=174, window=(9, 9, 9))
    assert parameters(model) == 24_978_298


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "msnet_r50"}, "there is no model 'msnet_r50'; the models are tsn_r18"),
        (
            {"name": "msnet_tsm_r18", "windw": 3},
            "msnet_tsm_r18 has no field windw; its block's fields are reduction, radius",
        ),
        ({"name": "tsm_r18", "radius": 3}, "tsm_r18 has no field radius; it has no motion block"),
        ({"name": "msnet_tsm_r18", "sites": ("res6",)}, "has no site res6; its sites are pool1, res2"),
        ({"name": "msnet_tsm_r18", "sites": "res3"}, "sites must name the stages"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        motion_jax.build_model(**arguments, num_classes=3)


@pytest.mark.parametrize("name", ["msnet_tsn_r18", "selfynet_tsm_r50"])
def test_any_site_several_sites_and_narrow_widths(name):
    model = motion_jax.build_model(name, num_classes=5, width=8, sites=("pool1", "res2", "res4", "res5"))
    clips = jnp.asarray(np.random.default_rng(0).integers(0, 256, (1, 3, 32, 40, 3)), jnp.uint8)
    variables = jax.jit(lambda x: model.init(jax.random.key(0), x, train=False))(clips)
    logits, aux = jax.jit(lambda v, x: model.apply(v, x, train=False, method="features"))(variables, clips)
    assert logits.shape == (1, 5)
    assert list(aux["motion"]) == ["pool1", "res2", "res4", "res5"]
    key = "displacement" if name.startswith("msnet") else "stss"
    np.testing.assert_array_equal(aux[key], aux["motion"]["pool1"][key])
