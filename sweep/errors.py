"""User-facing errors and their exit codes."""

import errno

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_REFUSED, EXIT_BUG, EXIT_STOPPED, EXIT_INTERRUPTED = 1, 2, 3, 70, 75, 130
"""Exit codes of verbs and workers (design.md, Verbs). EXIT_STOPPED: stopped on request with its state saved.
EXIT_INTERRUPTED: stopped by Ctrl-C with no state to save."""


class SweepError(Exception):
    """Base class of errors with a one-sentence message for the user."""

    exit_code = EXIT_FAILED


class InputError(SweepError):
    """Invalid input: a config value, a file or an argument. Nothing was written."""

    exit_code = EXIT_BAD_INPUT


class DataError(InputError):
    """An invalid corpus, tokenizer or prepared data set."""


class DataInterrupted(DataError):
    """Data preparation stopped because disk or network failed; finished work is kept for the next attempt."""


class SafetyError(SweepError):
    """Refused for safety: continuing could mix results or damage existing files."""

    exit_code = EXIT_REFUSED


class IndexUnavailable(SweepError):
    """The SQL copy of the points cannot be written; the sweep and its files are not affected."""


class Interrupted(SweepError):
    """A training run stopped on request with its state saved; it can be resumed."""

    exit_code = EXIT_STOPPED


class RankLost(SweepError):
    """A process of a multi-process run died; the run resumes from its last checkpoint."""


class Outlier(SweepError):
    """A training run left the band of its peers, and trainer.stop_outliers asks to stop it."""


OUT_OF_MEMORY_TEXTS = ("DefaultCPUAllocator", "out of memory", "STATUS_ALLOC_FAILED")
"""Texts in out-of-memory errors of torch's CPU allocator, the CUDA driver and the CUDA libraries."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for a failed allocation by Python, the system or torch; torch has no common class for it.

    Includes CUDA errors raised while an out-of-memory error is handled, as when a graph capture is aborted.
    """
    by_class = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    by_errno = isinstance(error, OSError) and error.errno == errno.ENOMEM
    by_text = isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY_TEXTS)
    if by_class or by_errno or by_text:
        return True
    is_cuda = isinstance(error, RuntimeError) and "CUDA" in str(error)
    return is_cuda and error.__context__ is not None and is_out_of_memory(error.__context__)


_INVALID_PATH = {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
_SYSTEM_FAILURE = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE,
    errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
}  # fmt: skip


def user_error(error: Exception) -> SweepError | None:
    """Convert an error to one with a one-sentence message and an exit code.

    Covers `SweepError` and system errors that a user can fix. Returns None for all others, which are bugs.
    """
    if isinstance(error, SweepError):
        return error
    if not isinstance(error, OSError):
        return None
    where = error.filename if error.filename is not None else "a file"
    if error.errno in _INVALID_PATH:
        return InputError(f"{where} cannot be used: {error.strerror}")
    if error.errno in _SYSTEM_FAILURE:
        return SweepError(
            f"{where} cannot be read or written: {error.strerror}; existing results are unchanged: "
            f"fix the cause and repeat the command"
        )
    return None
