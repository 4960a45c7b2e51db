"""Folders for the Hugging Face hub: round trip, checksums, page, and the hub's protocol on a server of this test."""

import importlib.util
import json
import shutil
import sys

import jax
import numpy as np
import pytest
import yaml
from bench import call, error_of, last_json, run, save_untrained, snapshot, write_videos
from hub_server import READER, TOKEN, serve

import motion_jax
from motion_jax.configs import video_folder
from motion_jax.experiment import load_trained
from motion_jax.weights import hub
from motion_jax.weights.files import read_tensors

LABELS = ("left", "right", "up", "down", "in", "out")
EVALUATION = {
    "top1": 61.25,
    "top5": 98.5,
    "mean_class": 60.5,
    "clips": 80,
    "protocol": {
        "split": "val",
        "clips": 1,
        "crops": 3,
        "average": "softmax",
        "root": "/home/someone/VIDEOS",
        "step": 0,
    },
}


def save_run(folder, root="/home/someone/VIDEOS"):
    config = video_folder.get_config("tsm_r18,4").to_dict()
    config["model"]["width"] = 8
    config["data"] |= {"root": str(root), "size": 32, "resize": (36, 44), "quality": 80}
    return save_untrained(config, list(LABELS), folder)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("hub") / "run")


@pytest.fixture(scope="module")
def original(workdir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "my-net"
    last_json(export(workdir, folder, "--json"))
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "my-net")


def export(workdir, folder, *options):
    return call("export", f"--checkpoint={workdir}", "--format=hub", f"--output={folder}", "--batch=1", *options)


def values_of(path):
    return {name: (value.dtype, value.shape, value.tobytes()) for name, value in read_tensors(path).items()}


def metadata_of(page):
    return yaml.safe_load(page.split("---\n")[1])


def assert_same_network(pretrained, workdir):
    model, variables, card = pretrained
    trained = load_trained(workdir)
    found, expected = (dict(jax.tree.leaves_with_path(each)) for each in (variables, trained.variables))
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        assert found[path].dtype == value.dtype
        np.testing.assert_array_equal(found[path], value)
    assert (card.labels, card.format) == (LABELS, "hub")
    assert model == card.build()
    clips = np.random.default_rng(0).integers(0, 256, (1, 4, 32, 32, 3), np.uint8)
    found = jax.jit(lambda variables: model.apply(variables, clips, train=False))(variables)
    expected = jax.jit(lambda variables: trained.model.apply(variables, clips, train=False))(trained.variables)
    np.testing.assert_array_equal(found, expected)


def test_a_folder_comes_back_bit_by_bit(workdir, original):
    assert sorted(snapshot(original)) == ["README.md", "config.json", "labels.json", "model.safetensors"]
    assert json.loads((original / "labels.json").read_text()) == list(LABELS)
    assert_same_network(motion_jax.from_pretrained(original), workdir)
    assert_same_network(motion_jax.from_pretrained(str(original)), workdir)


def test_no_path_of_the_machine_is_published(original):
    card = json.loads((original / "config.json").read_text())
    assert card["config"]["data"]["root"] == "VIDEOS"
    assert not [name for name, data in snapshot(original).items() if b"/home" in data]


def test_predictions_of_a_folder_are_those_of_its_run(workdir, original):
    frames = np.random.default_rng(0).integers(0, 256, (9, 40, 50, 3), np.uint8)
    expected = motion_jax.Predictor(motion_jax.load_run(workdir))(frames)
    found = motion_jax.Predictor(motion_jax.from_pretrained(original))(frames)
    assert found.labels == expected.labels
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)


def test_the_picture_and_the_prediction_of_a_run_whose_data_are_here(tmp_path):
    videos = write_videos(tmp_path / "videos", train=1, val=1)
    workdir = save_run(tmp_path / "run", root=videos)
    assert "no preview picture: its prepared data are not here" in export(workdir, tmp_path / "without").stderr
    assert not (workdir / "data").exists()
    load_trained(workdir).dataset  # noqa: B018
    done = export(workdir, tmp_path / "net")
    assert "no preview" not in done.stderr
    assert (tmp_path / "net" / "preview.png").read_bytes()[:4] == b"\x89PNG"
    assert "](preview.png)" in (tmp_path / "net" / "README.md").read_text()
    # The next export without a picture removes the old one and leaves files of others alone.
    (tmp_path / "net" / ".git").mkdir()
    (tmp_path / "net" / ".git" / "HEAD").write_text("ref: refs/heads/main")
    last_json(export(workdir, tmp_path / "net", "--no-preview", "--json"))
    assert not (tmp_path / "net" / "preview.png").exists()
    assert (tmp_path / "net" / ".git" / "HEAD").exists()
    video = videos / "val" / "left" / "0.avi"
    told = [last_json(call("predict", video, f"--checkpoint={path}", "--json")) for path in (workdir, tmp_path / "net")]
    found, expected = (dict(map(tuple, each["predictions"][0]["top5"])) for each in told)
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_page(workdir, tmp_path):
    try:
        (workdir / "eval.json").write_text(json.dumps(EVALUATION))
        last_json(export(workdir, tmp_path / "net", "--license=apache-2.0", "--json"))
    finally:
        (workdir / "eval.json").unlink()
    page = (tmp_path / "net" / "README.md").read_text()
    protocol = {"split": "val", "clips": 1, "crops": 3, "average": "softmax"}
    metrics = [
        {"type": "accuracy", "name": name, "value": value, "args": protocol}
        for name, value in (("top-1 accuracy", 0.6125), ("top-5 accuracy", 0.985), ("mean-class accuracy", 0.605))
    ]
    data = {"type": "video_folder", "name": "video_folder", "split": "val"}
    assert metadata_of(page) == {
        "pipeline_tag": "video-classification",
        "library_name": "motion-jax",
        "license": "apache-2.0",
        "tags": ["jax", "flax", "action-recognition", "tsm_r18"],
        "datasets": ["video_folder"],
        "metrics": ["accuracy"],
        "model-index": [
            {
                "name": "net",
                "results": [{"task": {"type": "video-classification"}, "dataset": data, "metrics": metrics}],
            }
        ],
    }
    assert "| top-1 accuracy | 61.25 % |" in page
    assert "On 80 videos. Protocol: split val, clips 1, crops 3, average softmax." in page
    assert "left, right, up, down, in, out." in page
    if importlib.util.find_spec("huggingface_hub"):
        from huggingface_hub import ModelCard

        results = ModelCard(page).data.eval_results
        assert [result.metric_value for result in results] == [0.6125, 0.985, 0.605]


def test_a_page_without_a_result_or_a_licence(original):
    page = (original / "README.md").read_text()
    assert not {"license", "metrics", "model-index"} & set(metadata_of(page))
    assert "No evaluation of this checkpoint is recorded." in page
    assert "None is stated (`tools.export --license=ID` states one)." in page
    assert 'motion_jax.from_pretrained("my-net")' in page


def refused(source, **options):
    with pytest.raises(ValueError) as raised:
        motion_jax.from_pretrained(source, **options)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


def test_damage_is_found(folder):
    weights, card = (folder / "model.safetensors").read_bytes(), (folder / "config.json").read_text()
    for position in np.random.default_rng(0).integers(0, len(weights), 10):
        flipped = weights[:position] + bytes([weights[position] ^ 1]) + weights[position + 1 :]
        (folder / "model.safetensors").write_bytes(flipped)
        assert "is not as it was written, says its card" in refused(folder)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(card.replace('"left"', '"lift"'))
    assert "its values are not those that were written" in refused(folder)
    (folder / "config.json").write_text(card[:-20])
    assert "config.json is not JSON" in refused(folder)
    (folder / "config.json").write_text(card)
    assert motion_jax.from_pretrained(folder).labels == LABELS
    (folder / "model.safetensors").unlink()
    assert "holds no model.safetensors: copy or export it again" in refused(folder)


def test_what_is_not_ours(folder, workdir):
    card = json.loads((folder / "config.json").read_text())
    for content in ({"model_type": "videomae", "architectures": ["VideoMAE"]}, [], {**card, "format": "onnx"}):
        (folder / "config.json").write_text(json.dumps(content))
        assert "is not a network that tools.export --format=hub wrote: its config.json is of another" in refused(folder)
    (folder / "config.json").write_text(json.dumps({**card, "format_version": 2, "more": 1}))
    assert "it has version 2, and this motion-jax reads up to 1: pip install --upgrade motion-jax" in refused(folder)
    assert "is not a network that tools.export" in refused(workdir)
    (folder / "config.json").unlink()
    assert "holds no config.json" in refused(folder)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent", "there is no folder absent; give one of this machine, or org/name of the Hugging Face hub"),
        ("a/b/c", "there is no folder a/b/c"),
        ("/absent/net", "there is no folder /absent/net"),
        ("gs://bucket/net", "there is no folder gs://bucket/net"),
        ("org/name", r'there is no folder org/name; to load it from the Hugging Face hub: pip install "motion-jax'),
    ],
)
def test_a_source_that_is_none(source, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert message in refused(source)


def test_a_folder_has_no_revisions(original):
    assert f"{original} is a folder, which has no revision v1" in refused(original, revision="v1")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--format=onnx", "--output=a.onnx", "--push=a/b"), "--push is for --format=hub only"),
        (("--format=onnx", "--output=a.onnx", "--license=mit"), "--license is for --format=hub only"),
        (("--format=hub", "--output=a", "--private"), "--revision and --private are for --push"),
        (("--format=hub", "--output=README.md"), "README.md is a file; --output takes a folder"),
        (("--format=hub", "--output=docs"), "docs holds other files, which would be mixed with the export"),
        (("--format=hub", "--output=a", "--push=name"), "--push takes a repository of the Hugging Face hub, org/name"),
        (("--format=hub", "--output=a", "--push=a/b"), "--push needs the package huggingface_hub: pip install"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(options, reason, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert reason in error_of(call("export", "--checkpoint=absent", *options))


# The client of the hub reads its variables when it is imported: each of these runs in a process of its own.
needs_hub = pytest.mark.skipif(
    not importlib.util.find_spec("huggingface_hub"), reason="the extra hub is not installed: huggingface_hub"
)
LOAD = """
import sys, motion_jax
from motion_jax.weights import save
try:
    pretrained = motion_jax.from_pretrained(sys.argv[1], revision=sys.argv[2] or None)
    save.save_safetensors(sys.argv[3], pretrained.variables)
    print("loaded")
except ValueError as error:
    print(f"ValueError: {error}")
"""


class Client:
    """Processes that see the server as the hub, with a cache of their own."""

    def __init__(self, url, folder):
        self.folder = folder
        self.variables = {"HF_ENDPOINT": url, "HF_HOME": str(folder / "cache"), "HF_HUB_DISABLE_XET": "1"}
        self.variables |= {"HF_TOKEN": None, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

    def load(self, repository, revision="", **variables):
        saved = self.folder / "loaded.safetensors"
        saved.unlink(missing_ok=True)
        done = run("-c", LOAD, repository, revision, saved, **{**self.variables, **variables})
        assert done.returncode == 0, done.stderr
        answer = done.stdout.splitlines()[-1]
        return answer if answer.startswith("ValueError") else values_of(saved)

    def export(self, workdir, *options, **variables):
        words = (f"--checkpoint={workdir}", "--format=hub", f"--output={self.folder / 'net'}", "--batch=1", "--json")
        return run("-m", "motion_jax.tools.export", *words, *options, **{**self.variables, **variables})


@needs_hub
@pytest.mark.long
def test_push_load_and_the_cache_without_a_network(workdir, original, tmp_path):
    weights = values_of(original / "model.safetensors")
    with serve() as server:
        client = Client(server.url, tmp_path)
        done = client.export(workdir, "--push=org/net", "--revision=v1", "--private", HF_TOKEN=TOKEN)
        assert done.returncode == 0, done.stderr
        commit = json.loads(done.stdout.splitlines()[-1])["commit"]
        assert commit.startswith(f"{server.url}/org/net/commit/")
        files = server.repositories["org/net"]["v1"]
        assert {**snapshot(tmp_path / "net"), ".gitattributes": files[".gitattributes"]} == files
        assert values_of(tmp_path / "net" / "model.safetensors") == weights
        assert server.private == {"org/net"}
        # A private repository, by branch and by commit, with a token and without.
        assert client.load("org/net", "v1", HF_TOKEN=READER) == weights
        assert client.load("org/net", commit.rpartition("/")[2], HF_TOKEN=READER) == weights
        absent = Client(server.url, tmp_path / "other").load("org/net", "v1")
        assert f"{server.url}/org/net does not exist or is private: check the name, or set HF_TOKEN" in absent
        downloads = [each for each in server.requests if each.startswith("GET") and "safetensors" in each]
        assert len(downloads) == 1
    # The server is gone.
    assert client.load("org/net", "v1", HF_HUB_OFFLINE="1") == weights
    assert client.load("org/net", "v1") == weights
    answer = client.load("org/net", "v2", HF_HUB_OFFLINE="1")
    assert f"org/net is not in the cache {tmp_path / 'cache' / 'hub'}, and HF_HUB_OFFLINE is set" in answer
    assert "org/net cannot be reached (" in client.load("org/net", "v2")


@needs_hub
@pytest.mark.long
def test_repositories_that_cannot_be_loaded(original, tmp_path):
    ours = snapshot(original)
    with serve() as server:
        for name, files in {
            "org/net": ours,
            "org/other": {"config.json": b'{"model_type": "videomae"}', "model.safetensors": bytes(1000)},
            "org/empty": {"README.md": b"nothing"},
        }.items():
            server.repositories[name] = {}
            server.commit(name, "main", files)
        client = Client(server.url, tmp_path)
        assert f"{server.url}/org/net has no revision v9" in client.load("org/net", "v9")
        assert "org/other is not a network that tools.export --format=hub wrote" in client.load("org/other")
        assert not [each for each in server.requests if "safetensors" in each]
        assert "org/empty holds no network that tools.export --format=hub wrote" in client.load("org/empty")
        # A proxy that changes one bit of the weights and keeps their size.
        whole = ours["model.safetensors"]
        server.broken["model.safetensors"] = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
        assert "is not as it was written" in client.load("org/net")


@needs_hub
@pytest.mark.long
def test_pushes_that_are_refused(workdir, tmp_path):
    def error(*options, **variables):
        return error_of(client.export(workdir, *options, **variables), only=False)

    with serve() as server:
        client = Client(server.url, tmp_path)
        assert "--push needs a token with write access: make one on the hub" in error("--push=org/net")
        assert not server.requests
        refused = error("--push=org/net", HF_TOKEN=READER)
        assert f"{server.url}/org/net refuses the token: set HF_TOKEN to one with access" in refused
        assert not server.repositories
    assert "org/net cannot be reached (" in error("--push=org/net", HF_TOKEN=TOKEN)
    assert hub.is_hub_folder(tmp_path / "net")
