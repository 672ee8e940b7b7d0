"""Repairs: a suspect encoder and the owner's clean images in, a new encoder out. Fine-tuning, distillation, pruning and
averaging of weights; `run` does one on files.
"""
