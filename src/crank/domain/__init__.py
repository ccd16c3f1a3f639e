"""Pure values: no input, no output, no clock, no chance."""
