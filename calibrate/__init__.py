"""Quantise, gate and adapt a model before it is deployed."""
