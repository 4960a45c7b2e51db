"""The TFDS builders of data sets made of videos, one per file, by their name in ``data.name``."""

from motion_jax.data.sources.diving48 import Diving48
from motion_jax.data.sources.finegym import FineGym
from motion_jax.data.sources.hmdb51 import HMDB51
from motion_jax.data.sources.kinetics400 import Kinetics400
from motion_jax.data.sources.list_files import ListFiles
from motion_jax.data.sources.something_v1 import SomethingV1
from motion_jax.data.sources.something_v2 import SomethingV2
from motion_jax.data.sources.ucf101 import UCF101
from motion_jax.data.sources.video_folder import VideoFolder
from motion_jax.data.sources.videos import Videos

_BUILDERS = (SomethingV1, SomethingV2, Kinetics400, Diving48, FineGym, UCF101, HMDB51, ListFiles, VideoFolder)
BUILDERS: dict[str, type[Videos]] = {builder.name: builder for builder in _BUILDERS}
