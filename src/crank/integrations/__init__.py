"""Crank behind the interfaces of other frameworks. Each module is loaded by its framework's entry point, and by nobody else."""
