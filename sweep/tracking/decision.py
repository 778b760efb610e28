"""The decision whether a sweep's runs are sent to the tracking service, made once before training."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sweep.config import TrackingConfig
from sweep.credentials import redact
from sweep.errors import InputError
from sweep.store.files import json_bytes, read_json, write_atomic

Mode = Literal["online", "offline", "disabled"]
PROBE_S = 20.0  # import of wandb, and one answer of its server

WANDB_PROBE = """
import json, os, sys, urllib.error, urllib.request
asked = sys.argv[1]
if asked != "auto":
    os.environ["WANDB_MODE"] = asked
ANSWER_S = 5.0
try:
    import wandb
    settings = wandb.setup().settings
except Exception as error:
    why = str(error).strip() or type(error).__name__
    if hasattr(error, "errors"):  # of pydantic
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}={first['input']!r}: {first['msg']}"
    print("\\n" + json.dumps({"unusable": why.splitlines()[0]}))
    sys.stdout.flush()
    os._exit(0)
heard = os.environ.get("WANDB_MODE") or settings.mode
mode = asked if asked != "auto" else {"dryrun": "offline"}.get(heard, heard or "online")
reason = None
if mode in ("offline", "disabled"):
    reason = f"tracking.mode={asked}" if asked != "auto" else f"WANDB_MODE={heard}"
else:
    mode = "online"
    try:  # before login, which waits longer for a server that does not answer
        urllib.request.urlopen(settings.base_url, timeout=ANSWER_S).close()
    except urllib.error.HTTPError:
        pass  # an answer
    except Exception as error:
        why = getattr(error, "reason", error)
        mode, reason = "offline", f"{settings.base_url} did not answer ({why})"
if mode == "online":
    try:
        known = wandb.login(prompt=False, verify=False)
    except TypeError:  # before login had these options
        known = wandb.api.api_key
    except Exception as error:  # a key of another form
        known, reason = None, str(error).splitlines()[0]
    if not known:
        mode, reason = "offline", reason or "there is no API key of wandb: run wandb login to send runs"
print("\\n" + json.dumps({"mode": mode, "reason": reason}))
sys.stdout.flush()
os._exit(0)  # without waiting for the service's own processes
"""
"""Prints, as JSON, the mode in which wandb can be used here; the library finds settings and credentials."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The mode of the runs of one sweep."""

    mode: Mode
    reason: str | None  # None: online, as configured


def decide(config: TrackingConfig) -> Decision:
    """Return the mode in which the service can be used from this machine; takes at most `PROBE_S` seconds.

    Without an answer of the service it is offline: the record is kept to be sent later. Raises InputError
    where the library cannot record anything, because of its installation or of settings of its own.
    """
    command = [sys.executable, "-P", "-W", "ignore", "-c", WANDB_PROBE, config.mode]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_S, stdin=subprocess.DEVNULL, check=False
        )
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        return Decision(mode="offline", reason=f"wandb did not answer within {PROBE_S:.0f} s")
    except (ValueError, IndexError):
        last = redact((done.stderr.strip().splitlines() or ["no output"])[-1])
        return Decision(mode="offline", reason=f"wandb does not work here ({last})")
    if "unusable" in found:
        raise InputError(
            f"tracking=wandb cannot record, since wandb does not start ({redact(found['unusable'])}): "
            f"correct its environment variables and settings files, or set tracking=none"
        )
    return Decision(mode=found["mode"], reason=found["reason"])


def write_decision(sweep_dir: Path, decision: Decision) -> None:
    """Keep the decision for the workers of the sweep."""
    write_atomic(_file(sweep_dir), json_bytes(asdict(decision)))


def read_decision(sweep_dir: Path) -> Decision | None:
    """Return the decision that was kept for the workers; None without a valid one."""
    stored: dict[str, Any] = read_json(_file(sweep_dir)) or {}
    if stored.get("mode") not in get_args(Mode):
        return None
    return Decision(mode=stored["mode"], reason=stored.get("reason"))


def _file(sweep_dir: Path) -> Path:
    return sweep_dir / "tracking.json"


def describe(sweep_dir: Path, decision: Decision) -> str:
    """Return one sentence about the tracking of a sweep, with the command that sends offline runs."""
    if decision.mode == "online":
        return "tracking=wandb: runs are sent as they train"
    if decision.mode == "disabled":
        return f"tracking=wandb: nothing is tracked, since {decision.reason}"
    return f"tracking=wandb: runs are kept in {sweep_dir / 'wandb'} and not sent, since {decision.reason}"
