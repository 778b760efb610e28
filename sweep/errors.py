"""User-facing errors and their exit codes."""

import errno

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_REFUSED, EXIT_BUG, EXIT_STOPPED, EXIT_INTERRUPTED = 1, 2, 3, 70, 75, 130
"""Exit codes of verbs and workers (docs/design.md, Verbs). EXIT_STOPPED: stopped on request, state saved;
EXIT_INTERRUPTED: ended by Ctrl-C with nothing to save."""


class SweepError(Exception):
    """Base of every error whose message is one clear sentence for the user."""

    exit_code = EXIT_FAILED


class InputError(SweepError):
    """Bad input: a config value, a file, an argument. Nothing was written."""

    exit_code = EXIT_BAD_INPUT


class DataError(InputError):
    """A corpus, a tokenizer or a prepared data set that cannot be used."""


class DataInterrupted(DataError):
    """Preparing data stopped for lack of disk space or network; finished files are kept."""


class SafetyError(SweepError):
    """Refused for safety: continuing could mix results or damage existing files."""

    exit_code = EXIT_REFUSED


class IndexUnavailable(SweepError):
    """The SQL copy of the points cannot be written now; the files of the sweep are not affected."""


class Interrupted(SweepError):
    """A training run stopped on request, its state saved; it can be started again."""

    exit_code = EXIT_STOPPED


class RankLost(SweepError):
    """One of the processes of a multi-device run died; the run continues from its last checkpoint."""


ALLOCATOR_WORDS = ("DefaultCPUAllocator", "out of memory", "STATUS_ALLOC_FAILED")
"""Parts of the out-of-memory messages of torch's CPU allocator, the CUDA driver and CUDA libraries."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation by Python, the system or torch failed.

    Some of torch's errors are recognised by their message. A CUDA error raised while an out-of-memory error
    is handled counts too, such as that of an interrupted graph capture.
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
            f"{where} cannot be read or written: {error.strerror}; existing results are untouched: resolve "
            f"the cause and run the same command again"
        )
    return None
