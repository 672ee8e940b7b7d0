"""The version of the package, below everything else."""

__version__ = "0.1.0"
