"""Pure decisions, one noun a file: facts in, a value with a reason out."""
