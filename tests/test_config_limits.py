"""Every field of a config refuses values out of its range in one line; a seeded generator tries many at a time."""

import copy
import dataclasses
import math
import random
import typing
from typing import Annotated

import pytest

from motion_jax.configs import moving_shapes, video_folder
from motion_jax.experiment import Experiment, keys_of
from motion_jax.fields import Range, check_fields, fits
from motion_jax.models.table import MODELS, block_fields
from motion_jax.training.recipe import make_optimizer, make_schedule

EXTREME = (math.nan, math.inf, -math.inf, 0, -1, 2**63, 1e308)
# What is no number where one is expected.
ODD = (
    *EXTREME,
    0.5,
    1,
    2,
    3,
    10**6,
    10**400,
    True,
    None,
    "",
    "x" * 3000,
    "1",
    (),
    [],
    {},
    [1, 2, 3],
    (0, 0, 0),
    {"a": 1},
)
BLOCKS = ("msnet_tsm_r18", "selfynet_tsm_r18", *(f"{name}_tsm_r18" for name in ("cpnet", "nonlocal", "mhsa")),
          "localattention_tsm_r18", "corrblock_tsm_r18", "tsn_mobilenetv2", "tsm_r101")  # fmt: skip


def numeric(kind) -> bool:
    """Whether a field takes numbers, alone or in a tuple."""
    return kind in (int, float) or any(map(numeric, typing.get_args(kind)))


def section_of(config, key):
    *sections, name = key.split(".")
    for section in sections:
        config = config[section]
    return config, name


def outcome(config) -> str:
    """Read a config, and return its refusal or "" if it is taken; any other exception ends the test."""
    try:
        experiment = Experiment.from_config(config)
        # What else reads the numbers before anything compiles.
        make_optimizer(experiment.train, make_schedule(experiment.train, train_size=100))
    except ValueError as error:
        return str(error)
    return ""


CONFIGS = {
    "videos": video_folder.get_config("msnet_tsm_r18,8").to_dict(),
    "made": moving_shapes.get_config("msnet_tsm_r18,8").to_dict(),
}
CONFIGS["videos"]["data"]["root"] = "videos"


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("key", [key for key, kind in keys_of().items() if numeric(kind)])
def test_every_number_is_taken_or_refused_in_one_line(name, key):
    for value in EXTREME:
        for given in (value, (value, value), (1.0, value)):
            config = copy.deepcopy(CONFIGS[name])
            section, field = section_of(config, key)
            section[field] = given
            refusal = outcome(config)
            # A learning rate may be any number of float32: a run that diverges says so.
            if isinstance(value, float) or (value == 2**63 and key != "train.learning_rate"):
                assert refusal, f"{key} = {given} is taken"
            if refusal:
                assert key.rpartition(".")[2] in refusal
                assert "\n" not in refusal
                assert len(refusal) < 400


@pytest.mark.parametrize("model", BLOCKS)
def test_every_field_of_a_block_is_taken_or_refused_in_one_line(model):
    entry = MODELS[model]
    config = copy.deepcopy(CONFIGS["made"])
    config["model"].update(name=model, block={}, sites=None)
    assert outcome(config) == ""
    for field in (*block_fields(entry.block), *entry.backbone.options):
        for value in ODD:
            for given in (value, (value,) * 3):
                config["model"]["block"] = {field: given}
                refusal = outcome(config)
                if isinstance(value, float) and not math.isfinite(value):
                    assert refusal, f"{field} = {given} is taken"
                if refusal:
                    assert field in refusal
                    assert "\n" not in refusal
                    assert len(refusal) < 400


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.dropout", 1.0, r"model.dropout is 1.0, expected a number from 0 to below 1"),
        ("model.dropout", math.nan, r"model.dropout = nan, expected a number"),
        ("train.warmup_epochs", math.inf, r"train.warmup_epochs = inf, expected a number"),
        ("train.steps", 2**63 - 1, r"train.steps = 9223372036854775807, expected an integer, or None"),
        ("data.size", 2**31, r"data.size is 2147483648, expected an integer from 1 to 8192"),
        ("model.block.radius", 1e8, r"radius of MotionSqueeze is 100000000.0, expected an integer from 1 to 31"),
        ("model.block.reduction", 0, r"reduction of MotionSqueeze is 0, expected an integer from 1 to 65536, or None"),
        ("model.block.widths", (0, 0, 0), r"widths of MotionSqueeze is \(0, 0, 0\), expected a tuple of int from 1"),
        ("model.block.sigma", math.nan, r"sigma of MotionSqueeze is nan, expected a number above 0, at most 1e\+06"),
        ("model.block.raduis", 3, r"has no field raduis; did you mean radius\?"),
        ("model.block.name", "x", r"model.block has no field 'name'"),
        ("train.learning_rate", math.inf, r"train.learning_rate = inf, expected a number"),
        ("train.weight_decay", math.inf, r"train.weight_decay = inf, expected a number"),
        ("train.classifier_lr", (-1, 0), r"train.classifier_lr is \(-1, 0\), expected two factors from 0 to 1e4"),
        ("eval.batch_size", 9999999999, r"eval.batch_size = 9999999999, expected an integer"),
        ("seed", -1, r"seed = -1, expected an integer from 0 to 2\*\*32 - 1"),
        ("model.name", "msnet_r18", r"there is no model 'msnet_r18'; did you mean msnet_\w+ or msnet_\w+\?"),
        ("model.name", "x" * 3000, r"there is no model 'x{50,60}\.\.\.; motion_jax.list_models\(\) gives all names"),
        ("data.name", "x" * 3000, r"data.name is 'x{50,60}\.\.\., expected one of"),
        ("data.frames", 1, r"data.frames is 1, expected 3 or more for moving_shapes"),
    ],
)  # fmt: skip
def test_what_once_reached_training_is_refused(key, value, message):
    config = copy.deepcopy(CONFIGS["made"])
    section, field = section_of(config, key)
    section[field] = value
    with pytest.raises(ValueError, match=message) as caught:
        Experiment.from_config(config)
    assert len(str(caught.value)) < 300


def test_one_frame_has_no_motion():
    config = copy.deepcopy(CONFIGS["videos"])
    config["data"]["frames"] = 1
    with pytest.raises(ValueError, match=r"data\.frames is 1, but the motion block of msnet_tsm_r18 compares frames"):
        Experiment.from_config(config)
    config["model"].update(name="tsn_r18", block={})
    Experiment.from_config(config)


@pytest.mark.parametrize("seed", range(10))
def test_random_configs_are_taken_or_refused(seed):
    """Values of every kind in several places at once, also where a section is expected."""
    draw = random.Random(seed)
    for _ in range(70):
        config = copy.deepcopy(CONFIGS[draw.choice(list(CONFIGS))])
        model = draw.choice(BLOCKS)
        fields = [*block_fields(MODELS[model].block), *MODELS[model].backbone.options, "name", "nothing"]
        config["model"].update(name=model, sites=None, block={draw.choice(fields): draw.choice(ODD)})
        for _ in range(draw.randint(0, 3)):
            section, field = section_of(config, draw.choice([*keys_of(), "model", "data", "train.new"]))
            if isinstance(section, dict):
                section[field] = draw.choice(ODD)
        refusal = outcome(config)
        assert "\n" not in refusal
        assert len(refusal) < 700


@pytest.mark.parametrize("config", [[], 3, None, "x", {"model": 3}])
def test_what_is_no_config(config):
    assert outcome(config)


def test_ranges():
    odd, above = Annotated[int, Range(1, 9, odd=True)], Annotated[float, Range(0, 1, above=True)]
    assert [value for value in range(-1, 12) if fits(value, odd)] == [1, 3, 5, 7, 9]
    assert [value for value in (0, 1e-9, 1, 1.1, math.nan, True) if fits(value, above)] == [1e-9, 1]

    @dataclasses.dataclass
    class Block:
        side: odd = 3
        norm: int = None

    check_fields(Block())
    with pytest.raises(ValueError, match=r"^side of Block is 4, expected an integer from 1 to 9, odd$"):
        check_fields(Block(4))
