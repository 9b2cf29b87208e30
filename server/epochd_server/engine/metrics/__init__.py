"""Metrics of outputs on held-out rows, equal to scikit-learn's; numpy only, always in float64."""

from epochd_server.engine.metrics.measuring import evaluate, measure, measure_members

__all__ = ["evaluate", "measure", "measure_members"]
