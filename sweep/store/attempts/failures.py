"""Classification of failures, which determines if a run is tried again."""

from __future__ import annotations

import errno
import os

from sweep.errors import DataError, Outlier, RankLost, is_out_of_memory

DISK_ERRORS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS))


def classify(error: BaseException) -> tuple[str, str]:
    """Return the end state of a failed attempt, and a one-line reason.

    >>> classify(OSError(28, "No space left on device"))
    ('failed:disk', 'OSError: [Errno 28] No space left on device')
    """
    first_line = (str(error).strip() or "no message").splitlines()[0][:500]
    return f"failed:{_failure_class(error)}", f"{type(error).__name__}: {first_line}"


def _failure_class(error: BaseException) -> str:
    if is_out_of_memory(error):
        return "oom"
    if isinstance(error, Outlier):
        return "outlier"
    if isinstance(error, RankLost):
        return "host"
    if isinstance(error, DataError):
        return "data"
    full = os.strerror(errno.ENOSPC) in str(error)  # native libraries pass on only the message
    if full or (isinstance(error, OSError) and error.errno in DISK_ERRORS):
        return "disk"
    return "code" if error.__cause__ is None else _failure_class(error.__cause__)
