"""`epochd admin`: check, gc, backup, restore and adopt what a server has stored, also while it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def admin(arguments: Sequence[str]) -> int:
    """Runs a command.

    Args:
        arguments: The command line after ``epochd admin``.

    Returns:
        The exit code: 0 done, 1 damage was found or it could not be done, 2 wrong usage.
    """
    from sqlalchemy.exc import DBAPIError

    from epochd_server.admin.commands import app
    from epochd_server.domain.errors import EpochdError
    from epochd_server.settings import BadSettings
    from epochd_server.storage.failures import StorageUnusableError

    try:
        app(list(arguments), prog_name="epochd admin")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BadSettings as error:
        return _fail(str(error), 2)
    except StorageUnusableError as error:
        return _fail(str(error), 1)
    except EpochdError as error:  # of a store that does not answer any more
        return _fail(str(error.__cause__ or error.message).partition("\n")[0], 1)
    except DBAPIError as error:
        return _fail(f"the database cannot be used: {error.orig}", 1)
    return 0


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"epochd: {message}\n")
    return code
