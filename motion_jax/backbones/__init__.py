"""Backbones: clips to named stages, with the temporal shift and motion blocks as options.

``protocol`` lists what a backbone declares beside its layers.
"""

from motion_jax.backbones.inception_i3d import InceptionI3D
from motion_jax.backbones.mobilenet_v2 import MobileNetV2
from motion_jax.backbones.resnet import ResNet

__all__ = ["InceptionI3D", "MobileNetV2", "ResNet"]
