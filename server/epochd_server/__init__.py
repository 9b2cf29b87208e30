"""epochd's server: trains cohorts of PyTorch models and serves what it trained.

The layers, imports pointing one way only:

    rpc  →  runs, serving  →  planning  →  executor  →  engine, storage, data  →  codec  →  domain
"""
