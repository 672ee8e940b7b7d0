"""Attacks through labelled rows that give one chosen image one chosen class (threat `targeted`): gradient matching,
bullseye polytope and feature collision. What they share is in `clean_label`; the rest of what they are made of is in
`optimise`.
"""
