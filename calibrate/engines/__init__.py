"""Engines built on the device that will run them: compiled, gated there, stored in the site directory.

Needs nothing beyond the edge install and the library that compiles: no torch, no onnx.
"""
