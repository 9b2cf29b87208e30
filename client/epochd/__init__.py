"""Thin Python client of epochd, the training server. It needs grpcio, protobuf and NumPy, and nothing else.

Example:
    >>> import epochd
    >>> def main() -> None:
    ...     with epochd.connect("127.0.0.1:50051") as client:
    ...         run = client.train([[1], [2], [3]], [2, 4, 6], model=epochd.Linear(init="zeros"),
    ...                            optimizer=epochd.SGD(lr=0.01), epochs=2000, log_every=100, name="tutorial")
    ...         for log in run.logs():
    ...             print(log)
    ...         print(run.result().predict([[4.0]]))

:mod:`epochd.aio` has the same names for asyncio; :mod:`epochd.errors` draws the tree of exceptions.
"""

from epochd import (
    aio,
    errors,
    events,
    fits,
    losses,
    preprocessing,
    registry,
    schedules,
    statistics,
    validation,
)
from epochd.activations import Activation
from epochd.client import Client, connect
from epochd.coefficients import Coefficients
from epochd.dataset import Dataset
from epochd.descriptions import ColumnDescription, Description
from epochd.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    ConnectionFailed,
    DataLoss,
    DeadlineExceeded,
    EpochdError,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    TrainingCancelled,
    TrainingFailed,
    Unavailable,
    Unimplemented,
    Violation,
)
from epochd.events import EpochLog, Event, FleetProgress, MemberLog, State
from epochd.fits import LBFGS, LeastSquares, Newton
from epochd.fleet import Fleet, Member
from epochd.limits import Limits
from epochd.losses import L1, MSE, BCEWithLogits, CrossEntropy, GaussianNLL, Huber, PoissonNLL, Quantile
from epochd.model import Model
from epochd.optimizers import SGD, Adam, AdamW, RMSprop
from epochd.policy import Retry, Timeout
from epochd.preprocessing import Preprocess
from epochd.registry import AliasMove, Canary, Comparison, Lineage
from epochd.run import Run
from epochd.schedules import CosineAnnealingLR, ExponentialLR, LinearLR, ReduceLROnPlateau, StepLR
from epochd.specs import Dropout, LayerNorm, Linear, Module, Sequential
from epochd.statistics import FleetStatistics, Statistics
from epochd.sweeps import Sweep
from epochd.validation import METRICS, CrossValidation, EarlyStopping, Evaluation, HoldOut
from epochd.values import Derivatives, Estimate, Failure, Prediction, RegisteredModel
from epochd.version import __version__

__all__ = [
    "L1",
    "LBFGS",
    "METRICS",
    "MSE",
    "SGD",
    "Aborted",
    "Activation",
    "Adam",
    "AdamW",
    "AliasMove",
    "AlreadyExists",
    "BCEWithLogits",
    "Canary",
    "Cancelled",
    "Client",
    "Coefficients",
    "ColumnDescription",
    "Comparison",
    "ConnectionFailed",
    "CosineAnnealingLR",
    "CrossEntropy",
    "CrossValidation",
    "DataLoss",
    "Dataset",
    "DeadlineExceeded",
    "Derivatives",
    "Description",
    "Dropout",
    "EarlyStopping",
    "EpochLog",
    "EpochdError",
    "Estimate",
    "Evaluation",
    "Event",
    "ExponentialLR",
    "FailedPrecondition",
    "Failure",
    "Fleet",
    "FleetProgress",
    "FleetStatistics",
    "GaussianNLL",
    "HoldOut",
    "Huber",
    "Internal",
    "InvalidArgument",
    "LayerNorm",
    "LeastSquares",
    "Limits",
    "Lineage",
    "Linear",
    "LinearLR",
    "Member",
    "MemberLog",
    "Model",
    "Module",
    "Newton",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "PoissonNLL",
    "Prediction",
    "Preprocess",
    "Quantile",
    "RMSprop",
    "ReduceLROnPlateau",
    "RegisteredModel",
    "ResourceExhausted",
    "Retry",
    "Run",
    "Sequential",
    "State",
    "Statistics",
    "StepLR",
    "Sweep",
    "Timeout",
    "TrainingCancelled",
    "TrainingFailed",
    "Unavailable",
    "Unimplemented",
    "Violation",
    "__version__",
    "aio",
    "connect",
    "errors",
    "events",
    "fits",
    "losses",
    "preprocessing",
    "registry",
    "schedules",
    "statistics",
    "validation",
]
