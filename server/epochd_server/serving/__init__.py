"""Resident weights and prediction."""

from epochd_server.serving.prediction import BuildPredictor, ModelSource, PredictionService
from epochd_server.serving.resident import RowPredictor

__all__ = ["BuildPredictor", "ModelSource", "PredictionService", "RowPredictor"]
