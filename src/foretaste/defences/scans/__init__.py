"""Scans: a suspicion score of an encoder, and of inputs under it."""
