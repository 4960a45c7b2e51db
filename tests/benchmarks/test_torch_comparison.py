"""The tables of the comparison with PyTorch, from made-up results."""

from benchmarks import torch_comparison
from benchmarks.accuracy import over_seeds


def test_tables():
    curve = [1.0] * 30
    drifting = [1.0, *[1.001] * 29]
    losses = {"ours": {"float64": curve, "float32": drifting}, "pytorch": {"float64": curve, "float32": curve}}
    row = {"clips": 20, "top1": over_seeds([60.0, 70.0, 80.0]), "train_loss": over_seeds([0.5])}
    theirs = {"top1": over_seeds([55.0, 70.0, 85.0]), "train_loss": over_seeds([0.25])}
    results = {
        "date": "2026-01-31",
        "recipe": {"config": "configs/any.py:NETWORK", "data.size": "64"},
        "setting": {"device": "cpu"},
        "collection": "First",
        "losses": {"tsm_mobilenetv2": losses},
        "runs": {"tsn_mobilenetv2": {**row, "pytorch": theirs}},
    }
    tables = torch_comparison.tables(results)
    assert list(tables) == ["torch_losses", "torch_runs"]
    assert tables["torch_losses"].splitlines()[2:4] == [
        "| TSM | float64, ours and PyTorch | 0e+00 | 0e+00 | 0e+00 | 0e+00 | 0e+00 |",
        "| TSM | float32, ours and PyTorch | 0e+00 | 1e-03 | 1e-03 | 1e-03 | 1e-03 |",
    ]
    runs = tables["torch_runs"].splitlines()
    assert runs[2] == "| TSN | 70.0 ± 10.0 | 70.0 ± 15.0 | +0.0 | 12.7 | 0.50 | 0.25 |"
    assert (
        runs[-1]
        == "First, 20 clips. `configs/any.py:NETWORK` with `data.size=64`. Measured on 2026-01-31 on device cpu."
    )
