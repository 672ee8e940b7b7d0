"""Foretaste from Python: a few functions on top of the house, which `import foretaste` offers by name."""
