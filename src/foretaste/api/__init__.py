"""Foretaste from Python: a few functions on top of the house. `import foretaste` offers them, each imported when used."""
