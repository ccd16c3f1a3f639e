"""HTTP only: every decision lies below."""
