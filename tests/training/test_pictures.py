"""Pictures during training: when they are drawn, beside the updates, and without changing them."""

import io
import threading

import jax
import numpy as np
import pytest
import tiny_runs
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from motion_jax.training.checkpoints import restore


def png(level=0):
    file = io.BytesIO()
    Image.fromarray(np.full((20, 30, 3), level, np.uint8)).save(file, format="png")
    return file.getvalue()


class Recorder:
    """Draws gray pictures, and keeps the variables it was given."""

    def __init__(self):
        self.variables = []

    def __call__(self, variables):
        self.variables.append(jax.tree.map(np.asarray, variables))
        return lambda: png(len(self.variables))


def events_of(path):
    content, events = path.read_bytes(), []
    while content:
        size = int.from_bytes(content[:8], "little")
        events.append(Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    return events


def drawn(workdir):
    return sorted(int(path.stem.removeprefix("step_")) for path in (workdir / "pictures").glob("step_*.png"))


@pytest.mark.parametrize("backend", ["pmap", "shard_map"])
def test_pictures_come_on_time_and_change_nothing(tmp_path, backend):
    options = {"steps": 7, "backend": backend, "eval_every_epochs": 0}
    plain = tiny_runs.run(tmp_path / "plain", **options)
    record = Recorder()
    assert tiny_runs.run(tmp_path / "drawn", picture=record, pictures_every=1.0, **options) == plain
    # An epoch has three updates, and the last update is drawn too.
    assert drawn(tmp_path / "drawn") == [3, 6, 7]
    with Image.open(tmp_path / "drawn" / "pictures" / "step_6.png") as image:
        assert image.size == (30, 20)
    found, expected = (restore(tmp_path / name / "checkpoints" / "latest" / "7") for name in ("drawn", "plain"))
    jax.tree.map(np.testing.assert_array_equal, found.variables, expected.variables)
    # The network is run with the variables of its step, whole, on one of eight devices.
    jax.tree.map(np.testing.assert_array_equal, record.variables[-1], expected.variables)


def test_tensorboard_has_the_pictures(tmp_path):
    tiny_runs.run(tmp_path, steps=3, picture=Recorder(), pictures_every=1.0)
    (file,) = (tmp_path / "tensorboard" / "pictures").iterdir()
    assert "tfevents" in file.name
    version, event = events_of(file)
    assert version.file_version == "brain.Event:2"
    assert event.step == 3
    (value,) = event.summary.value
    assert (value.tag, value.image.width, value.image.height) == ("seen", 30, 20)
    assert value.image.encoded_image_string == (tmp_path / "pictures" / "step_3.png").read_bytes()


def test_a_resumed_run_draws_no_step_twice(tmp_path):
    first, second = Recorder(), Recorder()
    tiny_runs.run(tmp_path, steps=5, picture=first, pictures_every=1.0, every_steps=100)
    before = (tmp_path / "pictures" / "step_3.png").stat().st_mtime_ns
    # As after a kill: the newest checkpoint is older than the newest picture.
    (tmp_path / "pictures" / "step_5.png").rename(tmp_path / "pictures" / "step_6.png")
    tiny_runs.run(tmp_path, steps=9, picture=second, pictures_every=1.0)
    assert (len(first.variables), len(second.variables)) == (2, 1)
    assert drawn(tmp_path) == [3, 6, 9]
    assert (tmp_path / "pictures" / "step_3.png").stat().st_mtime_ns == before


def failing(where):
    def run_network(variables):
        if where == "network":
            raise RuntimeError("out of memory")

        def draw():
            raise RuntimeError("out of memory")

        return draw

    return run_network


@pytest.mark.parametrize("where", ["network", "drawing"])
def test_a_failing_picture_warns_once_and_the_run_goes_on(tmp_path, caplog, where):
    result = tiny_runs.run(tmp_path, steps=9, picture=failing(where), pictures_every=0.25)
    assert result["finished"]
    said = [record.message for record in caplog.records if "picture" in record.message]
    assert said == ["no more pictures are drawn (RuntimeError: out of memory); the run goes on"]
    assert not (tmp_path / "pictures").exists()


def test_drawing_does_not_hold_up_the_updates(tmp_path):
    later = threading.Event()
    waited = []

    def run_network(variables):
        if waited:
            later.set()
        waited.append(None)

        def draw():
            # The first picture is done only after the network ran for the second one.
            assert later.wait(60)
            return png()

        return draw

    tiny_runs.run(tmp_path, steps=6, picture=run_network, pictures_every=1.0)
    assert drawn(tmp_path) == [3, 6]


def test_no_pictures_where_none_are_asked_for(tmp_path):
    record = Recorder()
    tiny_runs.run(tmp_path, steps=3, picture=record, pictures_every=0.0)
    assert not record.variables
    assert not (tmp_path / "pictures").exists()
