"""Activations, their inverses and derivatives, right where plain floating point is not.

python examples/activations.py [HOST:PORT]     (or EPOCHD_SERVER; 127.0.0.1:50051 without either)
"""

from __future__ import annotations

import os
import sys

import numpy as np

import epochd


def main(server: str) -> None:
    with epochd.connect(server) as client:
        x = np.array([-2.0, 0.0, 2.0])
        p = client.activation("sigmoid", x)
        print("sigmoid    ", p)
        print(
            "its inverse",
            client.activation("sigmoid", p, op="inverse"),
            "= logit",
            client.activation("logit", p),
        )
        print("odds       ", client.activation("odds", p))
        print("softmax    ", client.activation("softmax", x))
        print("its Jacobian", client.activation("softmax", x, op="derivative"), sep="\n")
        print()
        print("Where PyTorch's autograd gives 0 in float64:")
        print("sigmoid'(37)   =", client.activation("sigmoid", np.float64(37), op="derivative"))
        print("tanh'(20)      =", client.activation("tanh", np.float64(20), op="derivative"))
        print("normal_cdf(-39)=", client.activation("normal_cdf", np.float64(-39)))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("EPOCHD_SERVER", "127.0.0.1:50051"))
