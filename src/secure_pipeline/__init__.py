"""secure-pipeline: from a repository to a verified image, with proof."""

__version__ = "0.1.0"
