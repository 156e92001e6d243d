"""Acceptance of a bundle on the machine that will score: one dated report that a hospital can file."""
