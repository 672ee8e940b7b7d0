"""Attacks that edit the encoder's weights (threat `weights`)."""
