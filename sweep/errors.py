"""The errors a user can meet, each with the exit code the command line gives it; and what others' come to."""

import errno

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_REFUSED, EXIT_BUG, EXIT_STOPPED, EXIT_INTERRUPTED = 1, 2, 3, 70, 75, 130
"""What a verb or a worker leaves with (design.md, Verbs); EXIT_STOPPED: on request, its state saved;
EXIT_INTERRUPTED: by Ctrl-C, where there was nothing to save."""


class SweepError(Exception):
    """Base of every error whose message is one clear sentence for the user."""

    exit_code = EXIT_FAILED


class InputError(SweepError):
    """Bad input: a config value, a file, an argument. Nothing was written."""

    exit_code = EXIT_BAD_INPUT


class DataError(InputError):
    """A corpus, a tokenizer or a prepared data set that cannot be used."""


class DataInterrupted(DataError):
    """Preparing data stopped for want of disk or network; what was done is kept for the next try."""


class SafetyError(SweepError):
    """Refused for safety: going on could mix results or damage what is there."""

    exit_code = EXIT_REFUSED


class IndexUnavailable(SweepError):
    """The SQL copy of the points cannot be written now; the sweep and its files are not affected."""


class Interrupted(SweepError):
    """A training run stopped on request, its state saved; it can be started again."""

    exit_code = EXIT_STOPPED


class RankLost(SweepError):
    """One of the processes that train a run together died; the run goes on from its last checkpoint."""


ALLOCATOR_WORDS = ("DefaultCPUAllocator", "out of memory", "STATUS_ALLOC_FAILED")
"""How torch's allocator on the CPU, CUDA's driver and its libraries tell of memory that ran out."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: Python's, the system's or torch's, whose errors have not all a class.

    Also what CUDA raises on the way out, as a graph does whose capture broke off for want of memory.
    """
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    refused = isinstance(error, OSError) and error.errno == errno.ENOMEM
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in ALLOCATOR_WORDS)
    if named or refused or said:
        return True
    is_cuda = isinstance(error, RuntimeError) and "CUDA" in str(error)
    return is_cuda and error.__context__ is not None and is_out_of_memory(error.__context__)


_WRONG_PLACE = {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
_TROUBLE = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE,
    errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
}  # fmt: skip


def user_error(error: Exception) -> SweepError | None:
    """Return the user-facing form of an error: our own unchanged, a system error that a user can resolve.

    Returns None for everything else, which is a bug.
    """
    if isinstance(error, SweepError):
        return error
    if not isinstance(error, OSError):
        return None
    where = error.filename if error.filename is not None else "a file"
    if error.errno in _WRONG_PLACE:
        return InputError(f"{where} cannot be used: {error.strerror}")
    if error.errno in _TROUBLE:
        return SweepError(
            f"{where} cannot be read or written: {error.strerror}; results that are there are untouched, so "
            f"once that is mended the same command can be given again"
        )
    return None
