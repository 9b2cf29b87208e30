"""Gradients as PyTorch's autograd has them: they accumulate until somebody zeroes them.

python examples/tutorial_autograd.py [HOST:PORT]     (or EPOCHD_SERVER; 127.0.0.1:50051 without either)
"""

from __future__ import annotations

import os
import sys

import epochd


def show(result: epochd.Derivatives) -> None:
    """One line for each time that backward() was called."""
    for gradients in result.history:
        print(f"수식을 w로 미분한 값 : {gradients['w']}")


def main(server: str) -> None:
    with epochd.connect(server) as client:
        print("y = w**2, z = 2*y + 5")
        show(client.differentiate("y = w**2; z = 2*y + 5", w=2.0))
        print("z = 2*w, 21 times without optimizer.zero_grad()")
        show(client.differentiate("z = 2*w", w=2.0, repeat=21, accumulate=True))
        print("z = 2*w, 21 times with optimizer.zero_grad()")
        show(client.differentiate("z = 2*w", w=2.0, repeat=21))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("EPOCHD_SERVER", "127.0.0.1:50051"))
