"""The grid of one audit: which trials there are, which are done, and the folder they are written to."""
