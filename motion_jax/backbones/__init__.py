"""Backbones: clips to named stages. The temporal shift and the motion blocks arrive as arguments."""

from motion_jax.backbones.resnet import ResNet

__all__ = ["ResNet"]
