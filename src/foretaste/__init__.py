"""Foretaste: how much poison can a pre-trained encoder and the head on top of it take?

Importing this package imports neither torch nor timm; each part is imported where it is used.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
