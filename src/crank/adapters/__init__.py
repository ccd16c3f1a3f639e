"""One outside thing a file; none knows another."""
