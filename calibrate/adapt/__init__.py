"""Adapt a model to a site: zero-shot as it came, a linear probe, fine-tuning; measured side by side."""
