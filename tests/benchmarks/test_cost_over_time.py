from benchmarks import cost_over_time


def test_costs_of_every_length(monkeypatch):
    monkeypatch.setattr(cost_over_time, "FRAMES", (2, 4))
    monkeypatch.setattr(cost_over_time, "CELLS", (3, 4))
    monkeypatch.setattr(cost_over_time, "CHANNELS", 8)
    monkeypatch.setattr(cost_over_time.blocks, "__all__", ["NonLocal"])
    costs = cost_over_time.cost_over_time(rounds=2)["NonLocal"]
    assert [len(values) for values in costs.values()] == [2, 2]
    assert all(milliseconds > 0 for milliseconds in costs["milliseconds"])
    # Layers of 8 -> 4 -> 8 channels with BN, two products and a softmax, of 24 and 48 positions.
    by_hand = [n * (4 * 8 * 4 + 4 * 8) + 2 * n * n * 4 + n * (3 * n - 1) for n in (24, 48)]
    assert costs["gflops"] == [operations / 1e9 for operations in by_hand]


def test_exponent():
    assert abs(cost_over_time.exponent([3.0 * frames**1.5 for frames in cost_over_time.FRAMES]) - 1.5) < 1e-12
