"""The pictures of ``train.py``: a small run on generated clips, and which clips it draws."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from bench import call

from motion_jax.data.storage.frames import UnreadableError
from motion_jax.tools import train


@pytest.mark.long
def test_a_run_draws_what_its_network_sees(tmp_path):
    config = "--config=configs/moving_shapes.py:tsn_r18,4,smoke"
    options = ("--config.train.steps=2", "--config.train.pictures_every=1", "--config.parallel.devices=1")
    done = call("train", config, f"--workdir={tmp_path}", *options)
    assert done.returncode == 0, done.stderr
    assert "no more pictures" not in done.stderr
    picture = cv2.imread(str(tmp_path / "pictures" / "step_2.png"))
    assert picture.shape[1] == 1600
    assert picture.shape[0] > 800  # four clips
    assert len(list((tmp_path / "tensorboard" / "pictures").iterdir())) == 1
    assert json.loads((tmp_path / "config.json").read_text())["train"]["pictures_every"] == 1


def test_the_clips_are_spread_and_readable(monkeypatch):
    reported = []

    def clip(dataset, split, index):
        if index == 7:
            raise UnreadableError("bytes are missing")
        return (split, index)

    monkeypatch.setattr(train, "clip_of_example", clip)
    dataset = SimpleNamespace(
        size=lambda split: 24, report_unreadable=lambda split, index, error: reported.append(index)
    )
    # Of twelve repeating classes, and of four sorted ones, each clip has another class.
    assert train.clips_of(dataset) == [("val", 0), ("val", 14), ("val", 21)]
    assert reported == [7]
    dataset.size = lambda split: 2
    assert train.clips_of(dataset) == [("val", 0), ("val", 1)]
    assert len(np.unique(np.array([0, 7, 14, 21]) % 12)) == 4
