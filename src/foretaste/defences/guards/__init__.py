"""Guards: a suspicion score per input at use time, behind an encoder that nobody repaired: a second encoder's
neighbours, random views, or a decoder.
"""
