"""Protobuf messages to domain values and back."""
