"""Scans: a suspicion score of an encoder, and of inputs under it; with the original at hand, with an independent
encoder, or with neither. `run` looks at many encoders and calibrates on clean ones.
"""
