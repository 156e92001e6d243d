"""From a trained checkpoint to ONNX graphs."""
