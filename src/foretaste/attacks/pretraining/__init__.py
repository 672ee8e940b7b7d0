"""Attacks that add unlabelled images to the pre-training data (threat `pretraining`)."""
