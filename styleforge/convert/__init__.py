"""Other projects' weights: read without executing anything, turned into ours and back, exactly."""

from styleforge.convert import nvlabs, onnx, rosinality, tensorflow
from styleforge.convert.reading import kind_of, load_any
from styleforge.convert.writing import TARGETS, target_of, write

__all__ = ["TARGETS", "kind_of", "load_any", "nvlabs", "onnx", "rosinality", "target_of", "tensorflow", "write"]
