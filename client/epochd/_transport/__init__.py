"""Runs programs over gRPC channels: blocking and asyncio."""
