"""What a restart may change: every field of a config, and the messages."""

import dataclasses
import json

import pytest
import tiny_runs

from motion_jax.configs import moving_shapes
from motion_jax.experiment import Experiment, check_restart, keys_of
from motion_jax.training.history import changed_fields, check_changes, describe_devices

CONFIG = moving_shapes.get_config("tsm_r18,8,smoke").to_dict()
EXPERIMENT = Experiment.from_config(CONFIG)
# These do not change the result of a run; every other field does.
FREE = {
    "train.on_nan",
    "train.pictures_every",
    *("data.root", "data.dir", "data.threads", "data.processes", "data.max_bad_fraction", "data.max_pixels"),
    *("train.log_every", "train.eval_every_epochs", "model.remat", "parallel.backend", "parallel.devices"),
    *(key for key in keys_of() if key.startswith(("eval.", "checkpoint."))),
}


def changed(key):
    """The experiment with another value at a key, as no config could hold it."""
    section, _, name = key.rpartition(".")
    other = object()
    if not section:
        return dataclasses.replace(EXPERIMENT, **{name: other})
    part = object.__new__(type(getattr(EXPERIMENT, section)))
    vars(part).update(vars(getattr(EXPERIMENT, section)), **{name: other})
    return dataclasses.replace(EXPERIMENT, **{section: part})


@pytest.mark.parametrize("key", keys_of())
def test_every_field_is_compared(key):
    changes = changed_fields(EXPERIMENT, changed(key))
    assert {name: change[2] for name, change in changes.items()} == {key: key not in FREE}


def test_fields_of_the_block_are_compared_one_by_one():
    model = dataclasses.replace(EXPERIMENT.model, name="msnet_tsm_r18", block={"radius": 3})
    other = dataclasses.replace(model, block={"radius": 5, "sigma": 4.0})
    assert changed_fields(model, other, "model.") == {
        "model.block.radius": (3, 5, True),
        "model.block.sigma": (None, 4.0, True),
    }


def test_messages():
    changes = {
        "train.steps": (6, 12, True),
        "train.schedule": ("x" * 99, "step", True),
        "data.threads": (2, 4, False),
    }
    options = {"keys": keys_of(), "workdir": "runs/mine"}
    says = (
        r"runs/mine has other values: train.steps 6 -> 12, train.schedule 'x{36}\.\.\. -> 'step'\. .*s,train.schedule$"
    )
    with pytest.raises(ValueError, match=says):
        check_changes(changes, allowed=(), **options)
    with pytest.raises(ValueError, match=r"other values: train.steps 6 -> 12\. They"):
        check_changes(changes, allowed=["train.schedule", "seed"], **options)
    check_changes(changes, allowed=["train.schedule", "train.steps"], **options)
    with pytest.raises(ValueError, match=r"--change: the config has no train.step; did you mean train.steps\?"):
        check_changes(changes, allowed=["train.step"], **options)


def test_a_restart_is_compared_with_its_newest_checkpoint(tmp_path):
    assert check_restart(EXPERIMENT, tmp_path, allowed=()) == {}
    tiny_runs.run(tmp_path, steps=4, config=CONFIG)
    (tmp_path / "config.json").write_text("{")  # A side file, which decides nothing.
    assert check_restart(EXPERIMENT, tmp_path, allowed=()) == {}
    with pytest.raises(ValueError, match=r"other values: seed 0 -> "):
        check_restart(changed("seed"), tmp_path, allowed=())
    assert set(check_restart(changed("seed"), tmp_path, allowed=["seed"])) == {"seed"}
    assert set(check_restart(changed("data.dir"), tmp_path, allowed=())) == {"data.dir"}
    other = Experiment.from_config(moving_shapes.get_config("tsn_r18,8,smoke").to_dict())
    with pytest.raises(ValueError, match="holds a run of tsm_r18, this one is of tsn_r18: choose another workdir"):
        check_restart(other, tmp_path, allowed=["model.name"])


def test_data_count_by_their_fingerprint(tmp_path):
    def with_data(**changes):
        return {**CONFIG, "data": {**CONFIG["data"], **changes}}

    tiny_runs.run(tmp_path, steps=2, config=with_data(fingerprint="0123456789abcdef"))
    moved = Experiment.from_config(with_data(dir="/elsewhere"))
    assert set(check_restart(moved, tmp_path, allowed=())) == {"data.dir"}
    other = Experiment.from_config(with_data(fingerprint="fedcba9876543210"))
    with pytest.raises(ValueError, match=r"data.fingerprint '0123456789abcdef' -> 'fedcba9876543210'\. They change"):
        check_restart(other, tmp_path, allowed=())
    assert set(check_restart(other, tmp_path, allowed=["data.fingerprint"])) == {"data.fingerprint"}


def test_the_history_has_one_line_per_start(tmp_path):
    tiny_runs.run(tmp_path, steps=2)
    tiny_runs.run(tmp_path, steps=4, changes={"train.steps": (2, 4)})
    first, second = map(json.loads, (tmp_path / "history.jsonl").read_text().splitlines())
    assert (first["step"], first["changes"], first["devices"], first["processes"]) == (0, {}, 8, 1)
    assert (second["step"], second["changes"]) == (2, {"train.steps": [2, 4]})
    assert {"time", "host", "kind", "versions"} < set(first)


def test_another_number_of_devices_is_logged(tmp_path, capsys):
    for steps, devices in ((2, 8), (4, 4), (6, 4)):
        tiny_runs.run(tmp_path, steps=steps, devices=devices, evaluate=False)
        said = [line for line in capsys.readouterr().err.splitlines() if "->" in line]
        expected = (
            "8 -> 4 devices: per-device BatchNorm now sees 2 clips, 1 before; the clips and their order stay the same"
        )
        assert said == ([expected] if steps == 4 else [])


def test_what_another_number_of_devices_means():
    before = {"processes": 1, "devices": 8, "batch_size": 64}
    assert describe_devices(before, before) == ""
    now = {"processes": 2, "devices": 16, "batch_size": 128}
    assert describe_devices(before, now).startswith(
        "1 -> 2 processes, 8 -> 16 devices: BatchNorm sees as many clips per device as before; the clips"
    )


def test_an_end_before_the_newest_checkpoint_is_refused(tmp_path):
    tiny_runs.run(tmp_path, steps=4)
    with pytest.raises(ValueError, match=r"is of step 4, but the run ends at step 2: raise train.steps"):
        tiny_runs.run(tmp_path, steps=2)
