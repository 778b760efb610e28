"""Seeing workers through to their end, whoever started them."""

from __future__ import annotations

from collections.abc import Callable

from sweep.launch.base import Launcher, LaunchState


def see_through(
    launcher: Launcher, *, should_stop: Callable[[], bool], look: Callable[[], float]
) -> LaunchState:
    """Start the workers and return how they ended; once `should_stop` is true they save and leave.

    `look` is called between, and says for how many seconds the next wait may last. Whatever it raises stops
    the workers too.
    """
    launcher.start()
    stopping = False
    try:
        while (state := launcher.wait(0)).n_running:
            if should_stop() and not stopping:
                launcher.stop()
                stopping = True
            launcher.wait(look())
        return state
    except BaseException:
        launcher.stop()
        raise
