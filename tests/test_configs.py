"""Every config file becomes an experiment; what does not fit a section is named."""

import copy
import dataclasses
import importlib
import json

import ml_collections
import pytest
from commands_support import ROOT

from motion_jax import list_models
from motion_jax.tools.experiment import Experiment, check_same_model

# Config file -> arguments to try beside its default ones; a file that is not listed here fails a test.
ARGUMENTS = {
    "moving_shapes": ("tsn_r18", "selfynet_tsm_r50,16"),
    "video_folder": ("tsm_r34", "selfynet_tsm_r18,16"),
}
# What an experiment cannot do without and its file cannot know.
NEEDED = {"video_folder": {"data.root": "videos"}}


def config_of(name, arguments=""):
    config = importlib.import_module(f"configs.{name}").get_config(arguments)
    for key, value in NEEDED.get(name, {}).items():
        if "smoke" not in arguments:
            config.update_from_flattened_dict({key: value})
    return config


def plain(name="moving_shapes", arguments="selfynet_tsm_r18,8"):
    return config_of(name, arguments).to_dict()


def test_no_config_file_is_forgotten():
    files = {path.stem for path in (ROOT / "configs").glob("*.py")} - {"__init__", "common"}
    assert files == set(ARGUMENTS)


@pytest.mark.parametrize("smoke", [False, True], ids=["full", "smoke"])
@pytest.mark.parametrize(
    ("name", "arguments"), [(name, arguments) for name in ARGUMENTS for arguments in ("", *ARGUMENTS[name])]
)
def test_builds_an_experiment(name, arguments, smoke):
    config = config_of(name, arguments + ",smoke" * smoke if arguments else "smoke" * smoke)
    experiment = Experiment.from_config(config.to_dict())
    model, *frames = arguments.split(",")
    assert experiment.model.name == (model or "msnet_tsm_r18")
    assert experiment.data.frames == (8 if smoke or not frames else int(frames[0]))
    if smoke:
        assert (experiment.data.name, experiment.data.root) == ("moving_shapes", None)
        assert experiment.model.width == 8
        assert experiment.train.steps * experiment.train.batch_size <= 200
    else:
        assert experiment.data.name == name
        if model.startswith("selfynet"):
            # Generated clips are small: their maps have no room for a window of 9x9.
            side = 5 if name == "moving_shapes" else 9
            assert experiment.model.block["window"] == (9 if frames == ["16"] else 5, side, side)


@pytest.mark.parametrize("model", list_models())
def test_every_model_in_every_config(model):
    for name in ARGUMENTS:
        assert Experiment.from_config(plain(name, f"{model},16")).model.name == model


@pytest.mark.parametrize("name", ARGUMENTS)
def test_is_locked(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert isinstance(config, ml_collections.ConfigDict)
    assert config.is_locked
    with pytest.raises(AttributeError):
        config.momentum = 0.9
    with pytest.raises(AttributeError):
        config.train.momentun = 0.9
    with pytest.raises(TypeError):
        config.train.batch_size = "many"


@pytest.mark.parametrize("arguments", ["a,8,9", "msnet_tsm_r18,eight", "msnet_tsm_r18,-8", ",8", "tsm_r18,8,smoke,8"])
def test_arguments_of_another_form(arguments):
    with pytest.raises(ValueError, match=r"config arguments are model,frames\[,smoke\], such as .*; got"):
        config_of("moving_shapes", arguments)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_json_gives_the_same_experiment(name):
    config = plain(name)
    assert Experiment.from_config(json.loads(json.dumps(config))) == Experiment.from_config(config)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.stpes", 3, r"no use for train\.stpes; known are .*train\.steps"),
        ("optimizer", {}, r"no use for optimizer; known are .*train"),
        ("model.name", "tsn_r19", r"no model 'tsn_r19'; the models are .*tsn_r18"),
        ("model.width", 64.0, r"model\.width = 64\.0, expected int"),
        ("model.sites", "res3", r"model\.sites = 'res3', expected .*tuple\[str"),
        ("model.sites", ("res9",), r"no site res9; its sites are .*res3"),
        ("model.block", {"radius": 7}, r"no field radius; its block's fields are .*window"),
        ("model.batch_norm", "none", r"model\.batch_norm must be one of .*per_device.*'none'"),
        ("model.dtype", "float16", r"model\.dtype must be .*bfloat16.*'float16'"),
        ("data", "moving_shapes", r"data = 'moving_shapes', expected a section"),
        ("data.name", "kinetics", r"data\.name: 'kinetics' came, expected one of moving_shapes, video_folder"),
        ("data.flip", "left", r"data\.flip: 'left' came, expected one of skip"),
        ("data.clips", (4800,), r"data\.clips = \(4800,\), expected tuple\[int, int\]"),
        ("train.steps", "300", r"train\.steps = '300', expected int \| None"),
        ("train.steps", True, r"train\.steps = True, expected int \| None"),
        ("train.milestones", (1.0, "2"), r"train\.milestones = .*, expected tuple\[float, \.\.\.\]"),
        ("train.nesterov", 1, r"train\.nesterov = 1, expected bool"),
        ("train.schedule", "linear", r"train\.schedule is 'linear', expected one of"),
        ("train.learning_rate", None, r"train\.learning_rate = None, expected float"),
        ("eval.average", "mean", r"eval\.average is 'mean', expected one of"),
        ("parallel.backend", "vmap", r"parallel\.backend is 'vmap', expected one of"),
        ("checkpoint.keep", 0, r"checkpoint\.keep is 0, expected at least 1"),
        ("seed", "1", r"seed = '1', expected int"),
    ],
)
def test_what_does_not_fit_is_named(key, value, message):
    config = plain()
    *section, last = key.split(".")
    (config[section[0]] if section else config)[last] = value
    with pytest.raises(ValueError, match=message):
        Experiment.from_config(config)


@pytest.mark.parametrize(
    "key",
    [
        name if not dataclasses.is_dataclass(field.type) else f"{name}.{key}"
        for field in dataclasses.fields(Experiment)
        for name in [field.name]
        for key in (
            [inner.name for inner in dataclasses.fields(field.type)] if dataclasses.is_dataclass(field.type) else [""]
        )
    ],
)
def test_what_is_missing_is_named(key):
    config = plain()
    *section, last = key.split(".")
    del (config[section[0]] if section else config)[last]
    with pytest.raises(ValueError, match=f"the config lacks {key}$"):
        Experiment.from_config(config)


def test_a_missing_section_is_named():
    config = plain()
    del config["eval"], config["parallel"]
    with pytest.raises(ValueError, match=r"the config lacks eval, parallel$"):
        Experiment.from_config(config)


def test_integers_are_numbers_and_lists_are_tuples():
    config = plain()
    config["train"].update(learning_rate=1, milestones=[1, 2])
    experiment = Experiment.from_config(config)
    assert experiment.train.learning_rate == 1
    assert experiment.train.milestones == (1, 2)


def test_a_checkpoint_is_evaluated_as_what_it_is(tmp_path):
    trained = json.loads(json.dumps(plain()))
    model = Experiment.from_config(plain()).model
    same = dataclasses.replace(model, dtype="bfloat16", dropout=0.0, batch_norm="frozen")
    check_same_model(same, trained, checkpoint=tmp_path)
    for other in ({"name": "selfynet_tsn_r18"}, {"sites": ("res2",)}, {"block": {"window": (5, 7, 7)}}, {"width": 16}):
        with pytest.raises(ValueError, match=rf"of another model: its model\.{next(iter(other))} is .*leave out"):
            check_same_model(dataclasses.replace(model, **copy.deepcopy(other)), trained, checkpoint=tmp_path)
