"""PromptRay: verified bundles of medical image-text models, and scores from them."""
