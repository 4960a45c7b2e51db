"""Files that are not what they should be are refused in one line, and nothing in them is run."""

import importlib.util
import os
import pickle
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from motion_jax.weights.files import read_tensors
from motion_jax.weights.save import save_safetensors


class Hostile:
    """Its pickle makes a folder when it is read carelessly."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


def hostile_files(folder):
    """The same attack in a bare pickle, old and new, in a PyTorch archive, and in PyTorch's old format."""
    marker = folder / "marker"
    files = []
    for protocol in (2, 4):
        files.append(folder / f"bare{protocol}.pth")
        files[-1].write_bytes(pickle.dumps({"state_dict": Hostile(marker)}, protocol=protocol))
    if importlib.util.find_spec("torch"):
        import torch

        content = {"conv1.weight": torch.zeros(2), "more": Hostile(marker)}
        torch.save(content, folder / "zip.pth.tar")
        torch.save(content, folder / "old.pt", _use_new_zipfile_serialization=False)
        files += [folder / "zip.pth.tar", folder / "old.pt"]
    return files, marker


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    files, marker = hostile_files(tmp_path)
    for path in files:
        with pytest.raises(
            ValueError, match=r"needs PyTorch|its pickle asks for \w+\.mkdir, which is refused|more than"
        ) as e:
            read_tensors(path)
        assert "\n" not in str(e.value)
        assert "weights_only" not in str(e.value)
        assert not marker.exists()
    # The attack is one: read carelessly, it works.
    pickle.loads(files[0].read_bytes())
    assert marker.exists()


def test_truncated_and_foreign_pytorch_files(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is an extra")
    torch.save({"conv1.weight": torch.ones(1000)}, whole := tmp_path / "whole.pth")
    assert read_tensors(whole)["conv1.weight"].sum() == 1000
    for name, content in (("cut.pth", whole.read_bytes()[:1000]), ("text.pth", b"hello"), ("empty.pth", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is not a PyTorch file of plain tensors: ") as error:
            read_tensors(tmp_path / name)
        assert "\n" not in str(error.value)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds no named tensors"):
        read_tensors(tmp_path / "list.pth")


def test_half_precision_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is an extra")
    torch.save({"a": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "half.pt")
    assert read_tensors(tmp_path / "half.pt")["a"].dtype == np.float32


def test_truncated_and_foreign_safetensors(tmp_path):
    save_file({"a": np.ones(100, np.float32)}, whole := tmp_path / "whole.safetensors")
    assert read_tensors(whole)["a"].sum() == 100
    cut = whole.read_bytes()
    huge = (2**62).to_bytes(8, "little") + b"{}"
    for name, content in (("cut", cut[:-4]), ("head", cut[:20]), ("text", b"hello"), ("empty", b""), ("huge", huge)):
        (path := tmp_path / f"{name}.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match="is not a whole safetensors file: ") as error:
            read_tensors(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", [{}, {"epoch": 3}, {"state_dict": {}}])
def test_a_dict_without_tensors(source):
    with pytest.raises(ValueError, match="the dict holds no named tensors"):
        read_tensors(source)


def test_without_pytorch_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "a.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"needs PyTorch: pip install torch, or bring it as \.safetensors"):
        read_tensors(tmp_path / "a.pth")


def flipped(path, position):
    """Write a copy of a file with one bit flipped."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    copy = path.with_name(f"flipped{path.suffix}")
    copy.write_bytes(content)
    return copy


def test_a_flipped_bit_in_our_safetensors_is_found(tmp_path):
    variables = {"params": {"conv1": {"kernel": np.ones(50, np.float32)}}, "batch_stats": {"bn1": {"mean": np.ones(3)}}}
    save_safetensors(path := tmp_path / "net.safetensors", variables)
    assert set(read_tensors(path)) == {"params/conv1/kernel", "batch_stats/bn1/mean"}
    size = path.stat().st_size
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    for position in range(header, size, 7):
        with pytest.raises(ValueError, match=r"the values of \S+ are not those that were written"):
            read_tensors(flipped(path, position))


@pytest.mark.parametrize(("was", "damaged"), [(b'"crc32"', b'"crs32"'), (b'kernel":{', b'kerneo":{')])
def test_damaged_names_in_our_safetensors_are_found(tmp_path, was, damaged):
    save_safetensors(path := tmp_path / "net.safetensors", {"params": {"kernel": np.ones(50)}, "batch_stats": {}})
    content = path.read_bytes()
    assert content.count(was) == 1
    path.write_bytes(content.replace(was, damaged))
    with pytest.raises(ValueError, match=r"the values of params/kerne.+ are not those"):
        read_tensors(path)


def test_a_flipped_bit_in_a_pytorch_file_is_found(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is an extra")
    torch.save({"conv1.weight": torch.ones(1000)}, path := tmp_path / "net.pth")
    # The values begin behind the local header of their entry.
    start = path.read_bytes().index(np.ones(10, np.float32).tobytes())
    for position in range(start, start + 4000, 397):
        with pytest.raises(ValueError, match=r"data/0 is not as it was written"):
            read_tensors(flipped(path, position))
