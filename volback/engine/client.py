"""Client: the library's client of an engine, which asks for the engine's version once."""

from __future__ import annotations

from typing import Any

import docker


class Client(docker.APIClient):  # type: ignore[misc]  # the library has no types
    """`version` answers what the engine said first: with that the library chooses the API, and it does not change
    while a connection lasts."""

    said: dict[str, Any] | None = None

    def version(self, api_version: bool = True) -> dict[str, Any]:
        """The engine's description of its version."""
        if self.said is None:
            self.said = super().version(api_version=api_version)
        return self.said
