"""Encoders of images, and the projector, as tuples of pure functions."""

from jlejepa.encoders.projector import make_projector
from jlejepa.encoders.registry import (
  ENCODERS,
  default_options,
  from_function,
  make_encoder,
)
from jlejepa.encoders.types import Encoder, Features, Projector

__all__ = [
  "ENCODERS",
  "Encoder",
  "Features",
  "Projector",
  "default_options",
  "from_function",
  "make_encoder",
  "make_projector",
]
