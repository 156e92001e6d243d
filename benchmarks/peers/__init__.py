"""PromptRay against its peers, in the same run: ``python -m benchmarks.peers --help``."""
