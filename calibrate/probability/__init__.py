"""Probabilities and thresholds of a site: from logits and labels to what the runtime can apply."""
