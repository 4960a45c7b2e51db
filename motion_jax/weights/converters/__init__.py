"""Optional exports, each through a converter that is an extra of the package: ONNX and TensorFlow's SavedModel."""
