"""The data set `video_folder`: any folder of videos, kept as JPEG frames for random access."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data import transforms
from data.decoding import VideoError, encode_jpeg, read_video
from data.folder_layout import Entry, Layout
from data.parallel import parallel_map
from data.progress import progress_bar

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unreadable:
    """A video without frames, and why."""

    path: str
    reason: str


class VideoFolder(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the videos of a layout.

    Videos without a readable frame are left out, named in the log and kept in ``info.metadata["unreadable"]`` as
    (path, reason); a video with fewer frames than it declares is kept with those it has, and named. The name of the
    configuration is a digest of the files and options, so a changed folder is prepared anew.

    Args:
        layout: the videos.
        resize: stored frame size: (height, width), or the short side with the aspect kept, or None as in the file.
        data_dir: folder under which the prepared data set lies.
    """

    # Raise it when the same videos begin to give other records.
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, layout: Layout, *, resize: tuple[int, int] | int | None, data_dir: str | Path) -> None:
        self._layout = layout
        self._resize = resize
        config = tfds.core.BuilderConfig(name=layout.digest(resize))
        super().__init__(data_dir=str(data_dir), file_format="array_record", config=config)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Frames of a folder of videos; see data/README.md.",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "frames": tfds.features.Sequence(
                        tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
                    ),
                    "label": tfds.features.ClassLabel(names=list(self._layout.classes)),
                    "num_frames": np.int32,
                    "fps": np.float32,
                }
            ),
            metadata=tfds.core.MetadataDict(unreadable=[]),
            # Records keep the order of the paths.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in self._layout.splits()}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        entries = [entry for entry in self._layout.entries if entry.split == split]
        kept = 0
        remarks = []
        with progress_bar(len(entries), label=f"videos {split}") as bar:
            for entry, read in zip(entries, parallel_map(self._read, entries), strict=True):
                bar.update()
                if isinstance(read, Unreadable):
                    self.info.metadata["unreadable"].append((read.path, read.reason))
                    remarks.append(f"{read.path} is left out: {read.reason}")
                    continue
                example, remark = read
                if remark:
                    remarks.append(f"{entry.path} is kept: {remark}")
                yield kept, example
                kept += 1
        for remark in remarks:  # After the progress bar, which they would tear.
            _log.warning("%s", remark)
        if kept == 0:
            raise ValueError(
                f"data.root: no video of split {split} of {self._layout.root} can be read: " + "; ".join(remarks)
            )

    def _read(self, entry: Entry) -> tuple[dict[str, Any], str] | Unreadable:
        """The example with a remark, empty if all is well."""
        frames = []
        try:
            video = read_video(self._layout.root / entry.path)
            for frame in video:
                if self._resize is not None:
                    height, width = transforms.scaled_size(*frame.shape[:2], resize=self._resize)
                    frame = transforms.resize(frame, height=height, width=width)
                frames.append(encode_jpeg(frame))
        except VideoError as error:
            return Unreadable(entry.path, error.reason)
        except OSError as error:
            return Unreadable(entry.path, error.strerror or str(error))
        remark = f"{video.decoded} of {video.declared} declared frames can be decoded" if video.incomplete else ""
        example = {
            "id": entry.path,
            "frames": frames,
            "label": entry.label,
            "num_frames": len(frames),
            "fps": video.fps,
        }
        return example, remark
