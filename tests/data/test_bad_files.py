"""Files that are no plain videos: odd names, pipes, playlists, bombs, and files that end the decoder."""

import json
import os
import re
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
from bench import ROOT, data_config, write_video

from motion_jax.data.pipeline import open_dataset
from motion_jax.data.storage import decoder
from motion_jax.data.storage.decoder import decode
from motion_jax.data.storage.image_size import image_size
from motion_jax.data.storage.video_files import VideoError, find_videos, read_video
from motion_jax.data.storage.work import parallel_map

# A byte that is not UTF-8, an escape that clears the terminal, a line break, and a mark that reverses the text.
NAMES = [b"caf\xe9.avi", b"\x1b[2J.avi", b"two\nlines.avi", "\u202egpj.avi".encode(), b"\xff\xfe.avi"]


def read(path, **options):
    return decode(path, **{"resize_to": None, "quality": 95, "max_pixels": 2**20, **options})


@pytest.fixture
def video(tmp_path):
    write_video(tmp_path / "videos" / "plain.avi", range(0, 100, 20))
    return tmp_path / "videos" / "plain.avi"


def bomb(path, data: bytes):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path.parent


def image(suffix: str, *, height: int = 8, width: int = 12) -> bytes:
    return cv2.imencode(suffix, np.full((height, width, 3), 100, np.uint8))[1].tobytes()


def as_large(jpeg: bytes, *, height: int, width: int) -> bytes:
    """Change the size that a JPEG declares."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


@pytest.mark.parametrize("name", NAMES)
def test_names_may_hold_any_bytes(video, name):
    expected = read(video)
    odd = os.path.join(os.fsencode(video.parent), name)
    os.rename(video, odd)
    assert read(os.fsdecode(odd)) == expected
    assert len(list(read_video(os.fsdecode(odd)))) == 5


def test_odd_names_in_a_folder_and_its_manifest(tmp_path):
    """In a process of its own, because a name that is not UTF-8 once ended it."""
    root = os.fsencode(tmp_path / "root")
    write_video(tmp_path / "plain.avi", range(0, 100, 20))
    lines = [b"path,split"]
    for folder in (b"a\xe9", b"b\x1b[2J"):
        os.makedirs(os.path.join(root, folder))
        for name in NAMES:
            os.link(tmp_path / "plain.avi", os.path.join(root, folder, name))
            lines.append(b'"' + folder + b"/" + name + b'",' + (b"val" if name == NAMES[0] else b"train"))
    arguments = ["video_folder", f"--root={tmp_path / 'root'}", "--json", "--resize=16", "--config.data.size=16"]
    for manifest in (False, True):
        if manifest:
            (tmp_path / "root/manifest.csv").write_bytes(b"\n".join(lines))
        done = subprocess.run(
            [sys.executable, "-m", "motion_jax.tools.prepare", *arguments, f"--dir={tmp_path / str(manifest)}"],
            capture_output=True,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr
        text = (done.stdout + done.stderr).decode()
        assert not {"\x1b", "\u202e"} & set(text)
        splits = json.loads(done.stdout.splitlines()[-1])["splits"]
        assert {split: values["videos"] for split, values in splits.items()} == {"train": 8, "val": 2}


def test_stored_names_are_escaped(tmp_path):
    root = os.fsencode(tmp_path / "root")
    write_video(tmp_path / "plain.avi", range(0, 100, 20))
    for folder in (b"train/a\xe9", b"train/b\n", b"val/b\n"):
        os.makedirs(os.path.join(root, folder))
        os.link(tmp_path / "plain.avi", os.path.join(root, folder, NAMES[0]))
    dataset = open_dataset(data_config(name="video_folder", root=str(tmp_path / "root")), default_dir=str(tmp_path))
    assert dataset.labels == (r"a\xe9", r"b\n")
    assert [dataset.example("train", i)["id"] for i in range(2)] == [
        r"train/a\xe9/caf\xe9.avi",
        r"train/b\n/caf\xe9.avi",
    ]


def test_records_need_a_folder_whose_name_is_utf8(tmp_path):
    with pytest.raises(ValueError, match=r"data\.dir is '/.*, expected a name in UTF-8"):
        open_dataset(data_config(), default_dir=os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))


@pytest.mark.parametrize("alone", [True, False])
def test_pipes_devices_and_sockets_are_refused_without_reading(tmp_path, alone):
    """A pipe would block, /dev/zero would never end."""
    folder = tmp_path / "frames"
    folder.mkdir()
    os.mkfifo(folder / "1.jpg")
    if alone:
        for path in (folder / "1.jpg", "/dev/zero"):
            with pytest.raises(VideoError, match="it is a pipe, a socket or a device, not a file; give a file"):
                read(path)
    else:
        with pytest.raises(VideoError, match="the folder holds no images"):
            read(folder)


@pytest.mark.parametrize(
    "text",
    ["ffconcat version 1.0\nfile {}\n", "#EXTM3U\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n", "v=0\nc=IN IP4 127.0.0.1\n{}"],
)
def test_lists_of_other_files_are_refused(video, text):
    path = video.with_name("list.mp4")
    for start in ("", "\ufeff"):
        path.write_text(start + text.format(video))
        with pytest.raises(VideoError, match="a list of other files or addresses, not a video; give the videos"):
            read_video(path)


def test_ffmpeg_itself_opens_no_list_of_files(video, monkeypatch):
    """The second fence of the worker, for lists that the first does not recognise."""
    path = video.with_name("list.m3u8")
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\n{video}\n#EXT-X-ENDLIST\n")
    blind = "from motion_jax.data.storage import video_files\nvideo_files._PLAYLIST = video_files.re.compile(b'(?!)')\n"
    monkeypatch.setattr(decoder, "_START", decoder._START.replace("serve()\n", blind + "serve()\n"))
    with pytest.raises(VideoError, match="no readable video stream"):
        decode(path, resize_to=None, quality=95, max_pixels=2**20 + 1)


def test_links_pipes_and_loops_in_a_folder_of_classes_cost_themselves_alone(tmp_path):
    root = tmp_path / "root"
    for folder in ("train/a", "train/b", "val/a", "val/b"):
        write_video(root / folder / "1.avi", [0, 50])
        for name in ("itself.mp4", "itself", "frames/itself.jpg"):
            (root / folder / name).parent.mkdir(exist_ok=True)
            (root / folder / name).symlink_to(os.path.basename(name))
        os.mkfifo(root / folder / "pipe.mp4")
    section = data_config(name="video_folder", root=str(root), max_bad_fraction=0.8)
    assert open_dataset(section, default_dir=str(tmp_path)).size("train") == 2


def test_linked_folders_are_searched_once(video):
    (video.parent / "loop").symlink_to(video.parent)
    (video.parent / "itself.mp4").symlink_to("itself.mp4")
    assert find_videos(video.parent) == [video.with_name("itself.mp4"), video]
    with pytest.raises(OSError, match="symbolic links"):
        read(video.with_name("itself.mp4"))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm", ".gif"])
def test_declared_sizes_of_images(suffix):
    data = image(suffix, height=17, width=300)
    assert image_size(data) == (300, 17)
    for end in range(0, len(data), 7):
        assert image_size(data[:end]) in (None, (300, 17))


def test_declared_sizes_of_other_forms():
    webp = cv2.imencode(".webp", np.full((17, 300, 3), 100, np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    assert webp[12:16] == b"VP8L"
    assert image_size(webp) == (300, 17)
    jpeg = image(".jpg", height=17, width=300)
    progressive = cv2.imencode(".jpg", np.zeros((17, 300, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(jpeg) + 2) + jpeg
    assert [
        image_size(data) for data in (progressive, jpeg[:2] + thumbnail + as_large(jpeg, height=5, width=9)[2:])
    ] == [
        (300, 17),
        (9, 5),
    ]
    assert image_size(b"not an image") is None


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_frames_that_declare_too_many_pixels_are_refused(tmp_path, suffix):
    data = as_large(image(".jpg"), height=16000, width=16000)
    if suffix == ".png":
        data = image(".png")
        data = data[:16] + struct.pack(">II", 16000, 16000) + data[24:]
    folder = bomb(tmp_path / "frames" / f"1{suffix}", data)
    with pytest.raises(
        VideoError, match=rf"1{suffix} declares 16000x16000 pixels, more than data.max_pixels = 1048576"
    ):
        read(folder)
    with pytest.raises(VideoError, match="declares 16000x16000"):
        list(read_video(folder))


def test_videos_that_declare_too_many_pixels_are_refused(video):
    with pytest.raises(VideoError, match=r"it declares 64x48 pixels, more than data\.max_pixels = 3071; shrink it, "):
        read(video, max_pixels=64 * 48 - 1)
    assert len(read(video, max_pixels=64 * 48).frames) == 5


def test_the_limit_is_part_of_a_changed_folder(tmp_path):
    root = tmp_path / "root"
    for split in ("train", "val"):
        for name, size in (("a", (24, 32)), ("b", (48, 64))):
            write_video(root / split / name / "1.avi", [0, 100], size=size)
    section = {"name": "video_folder", "root": str(root), "max_bad_fraction": 0.5}
    sizes = [
        open_dataset(data_config(**section, max_pixels=pixels), default_dir=str(tmp_path)).size("train")
        for pixels in (64 * 48 - 1, 64 * 48)
    ]
    assert sizes == [1, 2]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("os.kill(os.getpid(), 11)", r"it crashed the decoder \(SIGSEGV\)"),
        ("os._exit(3)", r"it crashed the decoder \(exit status 3\)"),
        ("time.sleep(100)", "decoding one frame took more than 1 s"),
        ("bytearray(2**31)", "decoding it takes more than 1 GiB of memory"),
    ],
)
def test_a_file_that_ends_the_decoder_costs_itself_alone(tmp_path, monkeypatch, fault, reason):
    paths = [tmp_path / name for name in ("1.avi", "bad.avi", "2.avi", "3.avi")]
    for path in paths:
        write_video(path, [0, 100])
    faulty = f"""
import os, time
from motion_jax.data.storage import decoder
decoder.SECONDS, decoder.MEMORY = 1, 2**30
store_frames = decoder.store_frames
def fail(path, **options):
    if "bad" in path:
        {fault}
    return store_frames(path, **options)
decoder.store_frames = fail
"""
    monkeypatch.setattr(decoder, "_START", decoder._START.replace("serve()\n", f"{faulty}\nserve()\n"))
    monkeypatch.setattr(decoder, "SECONDS", 1)

    def result(path):
        try:
            return len(read(path).frames)
        except VideoError as error:
            return str(error)

    first, bad, *others = parallel_map(result, paths)
    assert (first, *others) == (2, 2, 2)
    assert bad.startswith(str(paths[1]))
    assert re.search(f"{reason}; convert it to H.264 in MP4, or remove it", bad)


def test_workers_end_with_their_threads(video):
    (pid,) = parallel_map(lambda path: (read(path), decoder._of_thread.worker._process.pid)[1], [video])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_worker_that_was_killed_is_replaced(video):
    first = read(video)
    decoder._of_thread.worker._process.kill()
    decoder._of_thread.worker._process.wait()
    assert read(video) == first


def test_workers_do_not_import_jax(monkeypatch, video):
    monkeypatch.setattr(
        decoder,
        "_START",
        decoder._START.replace("serve()\n", "assert not {'jax', 'tensorflow_datasets'} & set(sys.modules)\nserve()\n"),
    )
    assert read(video, max_pixels=2**22).frames
    monkeypatch.setattr(decoder, "_START", "raise SystemExit(4)")
    with pytest.raises(RuntimeError, match="no process for decoding starts: exit status 4"):
        read(video, max_pixels=2**23)
