"""The online TSM in PyTorch has the official logits of each frame."""

import numpy as np
import pytest
from official import arrays, description, generator, normalise, state_dict

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -r benchmarks/requirements.txt")

from benchmarks.torch_streaming import OnlineMobileNetV2  # noqa: E402

torch.set_num_threads(1)


def test_official_online_logits():
    listed = description("names_tsm_mobilenetv2_t8")["names_shapes"]
    residual = [f"features.{block}.conv.7" for block in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)]
    weights = {name.replace(".net.", "."): value for name, value in state_dict(listed, residual).items()}
    network = OnlineMobileNetV2(num_classes=174).eval()
    network.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in weights.items()}, strict=True)
    frames = normalise(generator(0).random((1, 4, 224, 224, 3), dtype=np.float32)).astype(np.float32)
    with torch.inference_mode():
        found = [network(torch.from_numpy(frames[:, time : time + 1]))[0].numpy() for time in range(4)]
    np.testing.assert_allclose(found, arrays("stream_tsm_mobilenetv2")["A"], atol=2e-4)
