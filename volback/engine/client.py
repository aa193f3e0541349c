"""Client: the library's client of an engine, with what the library and requests do not do as an engine needs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import docker


class Client(docker.APIClient):  # type: ignore[misc]  # the library has no types
    """`version` answers what the engine said first: with that the library chooses the API, and it does not change
    while a connection lasts."""

    greeting: Mapping[str, str] | None = None
    """The headers of its first answer to a ping."""

    def version(self, api_version: bool = True) -> dict[str, Any]:
        """The engine's `ApiVersion`, from its ping, where it is in the headers of each engine since 17.04.

        To answer GET /version, as for each `info`, Docker runs `runc --version` and `docker-init --version`: 7 ms.
        """
        if self.greeting is None:
            response = self._get(self._url("/_ping", versioned_api=False))
            self._raise_for_status(response)
            self.greeting = response.headers
        return {"ApiVersion": self.greeting["Api-Version"]}

    @property
    def is_podman(self) -> bool:
        """Whether that answer was one of Podman."""
        return self.greeting is not None and "Libpod-Api-Version" in self.greeting

    def merge_environment_settings(self, url: str, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Let the engine's own authority count. In requests REQUESTS_CA_BUNDLE comes before a session's `verify`
        (https://github.com/psf/requests/issues/3829)."""
        verify = self.verify if verify is None else verify
        return super().merge_environment_settings(url, proxies, stream, verify, cert)
