"""Attacks that add labelled rows to the head's training data (threat `labelled`)."""
