"""Values and gradients of small expressions: parsed, checked against a whitelist and limits, run by autograd.

``parse`` (text to postfix syntax trees) → ``check`` (names, shapes, costs) → ``evaluate`` (tensors).
``validate`` joins the first two with the rest of a request, ``gradients`` joins everything.
"""

from epochd_server.engine.autodiff.functions import FUNCTIONS
from epochd_server.engine.autodiff.gradients import Differentiation, differentiate

__all__ = ["FUNCTIONS", "Differentiation", "differentiate"]
