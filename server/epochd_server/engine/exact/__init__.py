"""Exact fitting: least squares, Newton's method and L-BFGS, in float64 whatever precision a training has."""
