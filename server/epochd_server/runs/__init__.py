"""The life of runs: accepting, logging, scheduling, ending. Plain asyncio; no grpc, no torch."""
