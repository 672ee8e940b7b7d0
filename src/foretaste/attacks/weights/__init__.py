"""Attacks that edit the encoder's weights so that chosen images get chosen classes downstream (threat `weights`): PA-
CL, its minimal form and BadEncoder. Each is one file; what they are made of is in `editing`.
"""
