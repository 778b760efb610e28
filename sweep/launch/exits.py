"""The end of a process that nobody watches: an exit code, and on stderr what its log is to tell."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from sweep.credentials import redact
from sweep.errors import EXIT_BUG, EXIT_FAILED, SweepError


def exit_code(work: Callable[[], int]) -> int:
    """The exit code that `work` returns, or that of the error it ends with (design.md, Verbs).

    Our own errors and the system's leave one sentence, a bug of ours leaves its trace; neither holds secrets.
    """
    try:
        return work()
    except (SweepError, OSError) as error:
        sys.stderr.write(f"{redact(str(error))}\n")
        return error.exit_code if isinstance(error, SweepError) else EXIT_FAILED
    except Exception:  # the log shows where, without the secrets a message may quote
        sys.stderr.write(redact(traceback.format_exc()))
        return EXIT_BUG
