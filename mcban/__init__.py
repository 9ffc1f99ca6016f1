"""mcban: an escalating multi-jail ban manager backed by SQL."""

__version__ = "0.1.0"
