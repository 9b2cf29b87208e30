"""The client for asyncio: the same names as in :mod:`epochd`, with ``await`` and ``async for``.

Example:
    >>> import epochd
    >>> async def main() -> None:
    ...     async with epochd.aio.connect("127.0.0.1:50051") as client:
    ...         run = await client.train([[1], [2], [3]], [2, 4, 6], model=epochd.Linear(),
    ...                                  optimizer=epochd.SGD(lr=0.01), epochs=2000)
    ...         async for log in run.logs():
    ...             print(log)
    ...         model = await run.result()
    ...         print(await model.predict([[4.0]]), await run.state)
"""

from epochd.aio.client import Client, connect
from epochd.aio.dataset import Dataset
from epochd.aio.fleet import Fleet, Member
from epochd.aio.model import Model
from epochd.aio.run import Run

__all__ = ["Client", "Dataset", "Fleet", "Member", "Model", "Run", "connect"]
