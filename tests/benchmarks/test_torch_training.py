"""The comparison of training runs with PyTorch: its updates and accuracy, on made-up data."""

import pathlib
import types

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -r benchmarks/requirements.txt")

from benchmarks import torch_training  # noqa: E402
from benchmarks.real_clips import config_changes  # noqa: E402
from benchmarks.torch_mobilenetv2 import build_network  # noqa: E402
from benchmarks.torch_networks import make_optimizer  # noqa: E402
from motion_jax.cli import read_config  # noqa: E402
from motion_jax.experiment import Experiment  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture
def start():
    changes = {**config_changes("any", pathlib.Path("videos"), pathlib.Path("imagenet.pth")), "train.steps": "2"}
    experiment = Experiment.from_config(read_config("configs/video_folder.py:tsn_mobilenetv2,2", changes))
    dataset = types.SimpleNamespace(labels=("a", "b"), size=lambda split: 8)
    return torch_training.Start(experiment, dataset, {})


def test_updates_follow_the_schedule(start, rng, monkeypatch):
    optimizers = []

    def make(network, *, learning_rate):
        optimizers.append(make_optimizer(network, learning_rate=learning_rate))
        return optimizers[-1]

    monkeypatch.setattr(torch_training, "make_optimizer", make)
    batch = {"clips": rng.integers(0, 256, (2, 2, 32, 32, 3), np.uint8), "label": np.array([0, 1], np.int32)}
    network = build_network("tsn_mobilenetv2", num_classes=2, frames=2, dropout=0.0).double()
    updates = torch_training.torch_updates(start, network, [torch_training.normalised(batch)] * 2)
    rates = []
    losses = []
    for loss in updates:
        losses.append(loss)
        rates.append([group["lr"] for group in optimizers[0].param_groups])
    # Half a cosine over two updates; biases learn at twice the rate.
    np.testing.assert_allclose(rates, [[0.0025, 0.005, 0.0025], [0, 0, 0]], rtol=0, atol=1e-12)
    assert losses[0] != losses[1]
    assert np.isfinite(losses).all()


def test_padding_does_not_count_in_the_accuracy(start, monkeypatch):
    def batches(dataset, *, batch_size):
        clips = np.zeros((3, 1, 2, 4, 4, 3), np.uint8)
        clips[1] = 255
        yield {"clips": clips, "label": np.array([0, 0, 1]), "mask": np.array([True, True, False])}

    class Brightness(torch.nn.Module):
        def forward(self, clips):
            bright = clips.float().mean((1, 2, 3, 4))
            return torch.stack([128 - bright, bright - 128], 1)

    monkeypatch.setattr(torch_training, "eval_batches", batches)
    assert torch_training.torch_accuracy(Brightness(), start) == 50


def test_a_finished_run_is_not_repeated(tmp_path):
    file = tmp_path / "0.json"
    file.write_text('{"top1": 75.0, "train_loss": 0.25}')
    assert torch_training.whole_run("tsn_mobilenetv2", {}, seed=0, file=file) == {"top1": 75.0, "train_loss": 0.25}
