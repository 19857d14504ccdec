"""The version, for those who stand below the package's names."""

__version__ = "0.1.0"
