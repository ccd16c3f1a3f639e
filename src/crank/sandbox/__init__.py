"""The trusted part: one file per kernel concept, readable alone."""
