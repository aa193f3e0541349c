"""The first error is the one that is shown: what fails while cleaning up after it is logged."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from volback.context import Context
from volback.context.repository import Repository
from volback.engine.engine import Engine
from volback.errors import IntegrityError, StoreError, cleaning_up
from volback.operations.doctor import _Doctor
from volback.settings import Settings
from volback.store.base import Store
from volback.store.faults import FailCall, Fault, FaultStore, FlipByte
from volback.store.memory import MemoryStore

EXPIRED = StoreError("the session token has expired")


def test_an_error_while_cleaning_up_is_logged_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    with cleaning_up("a file stays"):
        raise EXPIRED
    assert "a file stays: the session token has expired" in caplog.text
    with pytest.raises(ValueError, match="a mistake"), cleaning_up("a file stays"):
        raise ValueError("a mistake")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (FailCall("put", StoreError("cannot write"), key="volback-probe-*"), StoreError),
        (FailCall("open", StoreError("cannot read"), key="volback-probe-*"), StoreError),
        (FlipByte(0, key="volback-probe-*"), IntegrityError),
    ],
    ids=["put", "open", "flip"],
)
def test_doctor_says_what_failed_and_not_that_its_probe_stays(
    tmp_path: Path, fault: Fault, error: type[StoreError], caplog: pytest.LogCaptureFixture
) -> None:
    store = FaultStore(MemoryStore("m"), [fault, FailCall("delete", EXPIRED, nth=None)])
    ctx = Context(Settings(repository="unused", state=tmp_path, host="web1"))
    doctor = _Doctor(
        ctx, cast(Engine, None), Repository(cast(Store, store), lambda: "web1", ctx.now), fix=False, older_than_s=0
    )
    with pytest.raises(error) as caught:
        doctor._check_write("repository write")
    assert caught.value is not EXPIRED
    assert "what doctor wrote may stay: the session token has expired" in caplog.text
    store.assert_all_hit()
