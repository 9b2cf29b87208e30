"""Benchmarks: each claim of speed as a ratio against a named alternative, both measured in the same run."""
