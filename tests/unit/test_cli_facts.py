"""Facts for programs: what must not be among them."""

from __future__ import annotations

import pytest

from volback.catalog.model import Source
from volback.cli.facts import masked_options


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (
            {"type": "cifs", "o": "addr=nas,username=me,password=hunter2,vers=3.0", "device": "//nas/share"},
            {"type": "cifs", "o": "addr=nas,username=me,password=***,vers=3.0", "device": "//nas/share"},
        ),
        ({"o": "pass=a"}, {"o": "pass=***"}),
        ({"o": "PASSWD=a,rw"}, {"o": "PASSWD=***,rw"}),
        ({"s3.secret_key": "abc", "size": "8m"}, {"s3.secret_key": "***", "size": "8m"}),
        ({}, {}),
    ],
)
def test_secrets_of_a_volume_driver_are_masked(options: dict[str, str], shown: dict[str, str]) -> None:
    assert masked_options(Source(kind="volume", name="db", options=options)) == shown
