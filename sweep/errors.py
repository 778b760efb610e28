"""The errors a user can meet, each with the exit code the command line gives it."""

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
