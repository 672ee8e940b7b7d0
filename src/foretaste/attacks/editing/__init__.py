"""What edits of an encoder are made of: the problem and what is prepared for it, the copy that is edited, the terms of
the loss, the descent, and what makes an edit small, lasting or hard to see. The attacks themselves are in `weights`.
"""
