"""Client: the library's client of an engine, with what the library and requests do not do as an engine needs it."""

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

    def merge_environment_settings(self, url: str, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Let the engine's own authority count. In requests REQUESTS_CA_BUNDLE comes before a session's `verify`
        (https://github.com/psf/requests/issues/3829)."""
        verify = self.verify if verify is None else verify
        return super().merge_environment_settings(url, proxies, stream, verify, cert)
