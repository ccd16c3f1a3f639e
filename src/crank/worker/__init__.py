"""Use cases of a worker."""
