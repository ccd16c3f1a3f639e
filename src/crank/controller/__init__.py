"""Use cases of the controller, one verb a file."""
