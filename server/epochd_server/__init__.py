"""epochd's server: trains cohorts of PyTorch models and serves what it trained.

The layers, imports pointing one way only:

    rpc  →  runs, serving  →  executor, engine, storage  →  codec  →  domain
"""
