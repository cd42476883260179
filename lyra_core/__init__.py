"""One photo in, a world that a robot can be trained in out."""

__version__ = "0.1.0"
