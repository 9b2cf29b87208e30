"""The words everything else is written in: specs, events, resource names and errors.

Plain Python values without grpc, torch, asyncio or a database.
"""
