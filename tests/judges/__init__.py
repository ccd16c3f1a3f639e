"""Foreign software that judges Crank, each in a locked environment of its own."""
