"""Attacks that add unlabelled images to the encoder's pre-training data (threat `pretraining`): PoisonedEncoder and the
path of blends that it is compared with. `pairs` shares the budget among the pairs of a target and a class.
"""
