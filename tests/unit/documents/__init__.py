"""The code of the document capabilities, as far as it needs nothing of python-docs."""
