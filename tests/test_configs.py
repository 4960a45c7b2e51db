"""Every config file becomes an experiment; what does not fit a section is named."""

import copy
import dataclasses
import importlib
import json

import ml_collections
import pytest
from bench import ROOT

from motion_jax import list_models
from motion_jax.experiment import Experiment, check_same_model
from motion_jax.training.recipe import make_schedule

# Experiment -> its default arguments and others to try; a file that is not listed here fails a test.
EXPERIMENTS = {
    "something_v1": ("selfynet_tsm_r50,8", "msnet_tsm_r50,8", "msnet_i3d,8", "selfynet_tsm_mobilenetv2,16"),
    "something_v2": ("selfynet_tsm_r50,8", "msnet_tsm_r50,16"),
    "kinetics400": ("selfynet_tsm_r50,16", "msnet_tsm_r50,8", "msnet_tsm_r50,16"),
    "diving48": ("selfynet_tsm_r50,16", "tsm_r50,8"),
    "finegym": ("selfynet_tsm_r50,8", "msnet_tsm_r50,16"),
    "ucf101": ("tsm_r50,8", "selfynet_tsm_r18,16"),
    "hmdb51": ("tsm_r50,8", "msnet_tsm_r18,16"),
    "list_files": ("msnet_tsm_r18,8", "selfynet_tsm_r50,16"),
    "fine_tune": ("msnet_tsm_r18,8", "tsm_mobilenetv2,8", "selfynet_tsm_r50,16"),
    "video_folder": ("msnet_tsm_r18,8", "tsm_r34,8", "selfynet_tsm_r18,16"),
    "moving_shapes": ("msnet_tsm_r18,8", "tsn_r18,8", "selfynet_tsm_r50,16"),
}
SUPPLEMENTS = {"motionsqueeze_supplement", "selfy_supplement"}


def config_of(name, arguments=""):
    config = importlib.import_module(f"motion_jax.configs.{name}").get_config(arguments)
    if name != "moving_shapes" and "smoke" not in arguments:
        # An experiment on videos cannot do without their folder, and its file cannot know it.
        config.data.root = "videos"
    return config


def plain(name="moving_shapes", arguments="selfynet_tsm_r18,8"):
    return config_of(name, arguments).to_dict()


def test_no_config_file_is_forgotten():
    files = {path.stem for path in (ROOT / "configs").glob("*.py")} - {"__init__", "common", "rows"}
    assert files == set(EXPERIMENTS) | SUPPLEMENTS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_default_arguments(name):
    default, *_ = EXPERIMENTS[name]
    assert plain(name, "") == plain(name, default)
    assert plain(name, "smoke") == plain(name, f"{default},smoke")
    assert plain(name, "tsn_r18") == plain(name, f"tsn_r18,{default.partition(',')[2]}")


@pytest.mark.parametrize("smoke", [False, True], ids=["full", "smoke"])
@pytest.mark.parametrize(("name", "arguments"), [(name, each) for name in EXPERIMENTS for each in EXPERIMENTS[name]])
def test_builds_an_experiment(name, arguments, smoke):
    experiment = Experiment.from_config(plain(name, arguments + ",smoke" * smoke))
    model, frames = arguments.split(",")
    assert experiment.model.name == model
    assert experiment.data.frames == (8 if smoke else int(frames))
    if smoke:
        assert (experiment.data.name, experiment.data.root) == ("moving_shapes", None)
        # Made-up clips are as short as what is sampled: dense sampling would show one frame of them.
        assert experiment.data.sampling == "segment"
        assert experiment.model.width == 8
        assert experiment.train.steps * experiment.train.batch_size <= 200
        # The warm-up fits into the run.
        make_schedule(experiment.train, train_size=experiment.data.clips[0])
    else:
        assert experiment.data.name == ("video_folder" if name == "fine_tune" else name)
        if model.startswith("selfynet"):
            # Generated clips are small: their maps have no room for a window of 9x9.
            side = 5 if name == "moving_shapes" else 9
            assert experiment.model.block["window"] == (9 if frames == "16" else 5, side, side)


# What the papers and their code say of training, and what ours chose where they say nothing.
SELFY = {
    "batch_size": 64,
    "learning_rate": 0.01,
    "schedule": "step",
    "milestones": (30, 40),
    "decay_factor": 0.1,
    "epochs": 50,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 5e-4,
    "clip_norm": 20,
    "groups": "official",
    "classifier_lr": (1, 2),
}
MSNET = {**SELFY, "batch_size": 48, "milestones": (20, 30), "epochs": 40, "clip_norm": 200}
COSINE = {**SELFY, "schedule": "cosine", "milestones": (), "warmup_epochs": 10}
KINETICS = {**COSINE, "epochs": 65, "weight_decay": 1e-4, "classifier_lr": (5, 10)}
MSNET_KINETICS = {
    **SELFY,
    "batch_size": 96,
    "learning_rate": 0.02,
    "milestones": (30, 60),
    "epochs": 75,
    "nesterov": False,
    "weight_decay": 1e-4,
}
# The rate is proportional to the batch.
SMALL_BATCH = {**SELFY, "batch_size": 16, "learning_rate": 0.01 * 16 / 64, "milestones": (15, 25), "epochs": 30}
FINE_TUNING = {**SELFY, "learning_rate": 0.001, "milestones": (10, 20), "epochs": 25}


@pytest.mark.parametrize(
    ("name", "arguments", "recipe", "data"),
    [
        ("something_v1", "selfynet_tsm_r50,16", SELFY, {"resize": (240, 320), "sampling": "segment"}),
        ("something_v1", "tsm_r18,8", SELFY, {}),
        ("something_v1", "msnet_tsm_r18,8", MSNET, {"resize": (240, 320), "sampling": "segment"}),
        ("something_v2", "selfynet_tsm_r50,8", SELFY, {"resize": (240, 320), "sampling": "segment"}),
        ("something_v2", "msnet_tsm_r50,8", SELFY, {}),
        ("kinetics400", "selfynet_tsm_r50,16", KINETICS, {"resize": 256, "sampling": "dense"}),
        ("kinetics400", "tsm_r50,8", KINETICS, {"sampling": "dense"}),
        ("kinetics400", "msnet_tsm_r50,16", KINETICS, {"sampling": "dense"}),
        ("kinetics400", "msnet_tsm_r50,8", MSNET_KINETICS, {"resize": 256, "sampling": "dense"}),
        ("diving48", "", {**COSINE, "epochs": 30}, {"version": "v2", "resize": (240, 320)}),
        ("finegym", "", {**COSINE, "epochs": 40}, {"version": "gym99", "resize": (240, 320)}),
        ("ucf101", "", FINE_TUNING, {"version": "split1", "resize": 256, "sampling": "segment"}),
        ("hmdb51", "", FINE_TUNING, {"version": "split1", "resize": 256, "sampling": "segment"}),
        ("list_files", "", SELFY, {"flip": "none"}),
        ("fine_tune", "", SMALL_BATCH, {"resize": 256, "sampling": "segment"}),
        ("fine_tune", "tsm_mobilenetv2,8", SMALL_BATCH, {}),
    ],
)
def test_recipe(name, arguments, recipe, data):
    experiment = Experiment.from_config(plain(name, arguments))
    assert {key: getattr(experiment.train, key) for key in recipe} == recipe
    protocol = {"size": 224, "crop": "multi_scale", "flip": "skip", "version": None, **data}
    assert {key: getattr(experiment.data, key) for key in protocol} == protocol
    assert experiment.model.width == 64
    assert experiment.model.dropout == (0.8 if recipe is FINE_TUNING else 0.5)
    # Augmentations that the papers do without are off.
    assert (experiment.train.mixup, experiment.train.cutmix, experiment.train.label_smoothing) == (0, 0, 0)
    assert (experiment.data.color_jitter, experiment.data.rand_augment) == (None, None)
    assert (experiment.eval.clips, experiment.eval.crops, experiment.eval.average) == (1, 1, "softmax")
    assert not experiment.eval.full_resolution


@pytest.mark.parametrize("model", list_models())
def test_every_model_in_every_config(model):
    for name in EXPERIMENTS:
        assert Experiment.from_config(plain(name, f"{model},16")).model.name == model


@pytest.mark.parametrize("name", [*EXPERIMENTS, *sorted(SUPPLEMENTS)])
def test_is_locked(name):
    config = importlib.import_module(f"motion_jax.configs.{name}").get_config()
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


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_json_gives_the_same_experiment(name):
    config = plain(name, "")
    assert Experiment.from_config(json.loads(json.dumps(config))) == Experiment.from_config(config)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.stpes", 3, r"no use for train\.stpes; did you mean train\.steps"),
        ("optimizer", {}, r"no use for optimizer; known are .*train"),
        ("model.name", "tsn_r19", r"no model 'tsn_r19'; did you mean tsn_r18"),
        ("model.width", 64.0, r"model\.width = 64\.0, expected an integer"),
        ("model.sites", "res3", r"model\.sites = 'res3', expected a tuple of str, or None"),
        ("model.sites", ("res9",), r"no site res9; its sites are .*res3"),
        ("model.block", {"radius": 7}, r"no field radius; its block's fields are .*window"),
        ("model.batch_norm", "none", r"model\.batch_norm must be one of .*per_device.*'none'"),
        ("model.dtype", "float16", r"model\.dtype must be .*bfloat16.*'float16'"),
        ("data", "moving_shapes", r"data = 'moving_shapes', expected a section"),
        (
            "data.name",
            "kinetics",
            r"data\.name is 'kinetics', expected one of moving_shapes, something_v1, .*video_folder",
        ),
        ("data.flip", "left", r"data\.flip is 'left', expected one of skip"),
        ("data.clips", (4800,), r"data\.clips = \(4800,\), expected a tuple of 2 int, or None"),
        ("train.steps", "300", r"train\.steps = '300', expected an integer, or None"),
        ("train.steps", True, r"train\.steps = True, expected an integer, or None"),
        ("train.milestones", (1.0, "2"), r"train\.milestones = .*, expected a tuple of float"),
        ("train.nesterov", 1, r"train\.nesterov = 1, expected true or false"),
        ("train.schedule", "linear", r"train\.schedule is 'linear', expected one of"),
        ("train.learning_rate", None, r"train\.learning_rate = None, expected a number"),
        ("eval.average", "mean", r"eval\.average is 'mean', expected one of"),
        ("eval.crops", 2, r"eval\.crops is 2, expected 1 .* or 3"),
        ("parallel.backend", "vmap", r"parallel\.backend is 'vmap', expected one of"),
        ("checkpoint.keep", 0, r"checkpoint\.keep is 0, expected at least 1"),
        ("seed", "1", r"seed = '1', expected an integer"),
    ],
)
def test_what_does_not_fit_is_named(key, value, message):
    config = plain()
    *section, last = key.split(".")
    (config[section[0]] if section else config)[last] = value
    with pytest.raises(ValueError, match=message):
        Experiment.from_config(config)


def test_full_resolution_of_frames_as_filmed_is_refused():
    config = plain("video_folder")
    config["eval"]["full_resolution"] = True
    Experiment.from_config(config)
    config["data"]["resize"] = None
    with pytest.raises(ValueError, match=r"data\.resize"):
        Experiment.from_config(config)


@pytest.mark.parametrize(
    "key",
    [
        name if not dataclasses.is_dataclass(field.type) else f"{name}.{key}"
        for field in dataclasses.fields(Experiment)
        for name in [field.name]
        for key in (
            [inner.name for inner in dataclasses.fields(field.type) if inner.default is dataclasses.MISSING]
            if dataclasses.is_dataclass(field.type)
            else [""]
        )
    ],
)
def test_what_is_missing_is_named(key):
    config = plain()
    *section, last = key.split(".")
    del (config[section[0]] if section else config)[last]
    with pytest.raises(ValueError, match=f"the config lacks {key}$"):
        Experiment.from_config(config)


def test_an_option_added_later_may_be_missing():
    # Checkpoints from before it must stay readable.
    config = plain()
    del config["model"]["remat"], config["model"]["causal"]
    model = Experiment.from_config(config).model
    assert not model.remat
    assert not model.causal
    check_same_model(model, config, checkpoint="before")
    with pytest.raises(ValueError, match=r"its model\.causal is False, the config's True"):
        check_same_model(dataclasses.replace(model, causal=True), config, checkpoint="before")


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
    same = dataclasses.replace(model, dtype="bfloat16", dropout=0.0, batch_norm="frozen", remat=True)
    check_same_model(same, trained, checkpoint=tmp_path)
    for other in ({"name": "selfynet_tsn_r18"}, {"sites": ("res2",)}, {"block": {"window": (5, 7, 7)}}, {"width": 16}):
        with pytest.raises(ValueError, match=rf"of another model: its model\.{next(iter(other))} is .*leave out"):
            check_same_model(dataclasses.replace(model, **copy.deepcopy(other)), trained, checkpoint=tmp_path)
