"""Features: images through an encoder once, a cache of them on disk, and features that come straight from a file."""
