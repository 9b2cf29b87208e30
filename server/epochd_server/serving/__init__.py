"""Resident weights and prediction."""
