"""Repairs: a suspect encoder and the owner's clean images in, a new encoder out."""
