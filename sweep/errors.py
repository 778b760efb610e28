"""The errors a user can meet, each with the exit code the command line gives it."""

import errno

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_REFUSED, EXIT_BUG, EXIT_STOPPED = 1, 2, 3, 70, 75
"""What a verb or a worker leaves with (design.md, Verbs); EXIT_STOPPED: on request, its state saved."""


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

    Also what is raised for want of memory on the way out, as by a CUDA graph whose capture broke off.
    """
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    refused = isinstance(error, OSError) and error.errno == errno.ENOMEM
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in ALLOCATOR_WORDS)
    if named or refused or said:
        return True
    first = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return first is not None and is_out_of_memory(first)
