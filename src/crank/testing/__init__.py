"""Shipped for users and our own tests: fakes, and a conformance suite for each port."""
