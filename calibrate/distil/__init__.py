"""Distil: a small timm tower learns to stand in for a model's image tower; heads and text side stay."""
