"""A bundle as an NVIDIA Triton model repository. Needs onnx beyond the edge install, no torch."""
