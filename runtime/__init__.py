"""Load a bundle, read a radiograph, score it; without torch."""
