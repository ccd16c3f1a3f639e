"""Crank runs the Python that AI agents write, on machines you own."""

__version__ = "0.1.0"
