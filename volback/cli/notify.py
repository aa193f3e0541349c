"""`notify`: check whether the notifications of jobs arrive."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from volback.cli.call import Outcome, call_of
from volback.errors import UsageError, VolbackError

if TYPE_CHECKING:
    from volback.cli.documents.machine import Notified

_EPILOG = """\b
Examples:
  volback notify                         a test to all [notifications]
  volback notify admins --as failure     as for a failed job
"""


def register(app: typer.Typer) -> None:
    """Add the family's commands."""
    app.command(epilog=_EPILOG)(notify)


def notify(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NOTIFICATION...", help="Notifications of volback.toml; without any, all.", show_default=False
        ),
    ] = None,
    *,
    status: Annotated[
        str, typer.Option("--as", metavar="STATUS", help="The job result to send: success, warning, failure.")
    ] = "success",
) -> Outcome:
    """Send a test to the notifications of volback.toml.

    Those that do not want such a result get it too. Pings are sent too: a monitoring service counts them as a run.
    """
    from volback.jobs.open_config import open_config
    from volback.jobs.test_notification import try_notifications
    from volback.notify.report import Status

    known: tuple[Status, ...] = get_args(Status)
    as_status = next((one for one in known if one == status), None)
    if as_status is None:
        raise UsageError(f"--as {status!r} is unknown", f"give one of {', '.join(known)}")
    config = open_config(call_of(context).config)
    if not config.notifications:
        raise UsageError("the configuration has no notifications", "add [notifications.NAME] to volback.toml")
    host = os.environ.get("VOLBACK_HOSTNAME") or platform.node()
    trial = try_notifications(config, names or [], as_status, host=host, now=datetime.now(UTC))
    result: Notified = {"told": list(trial.notified), "failed": trial.failures}
    text = [] if trial.failures else [f"notified {name}" for name in trial.notified]
    return Outcome(result, text, errors=[VolbackError(failure, "fix it in volback.toml") for failure in trial.failures])
