"""Client: the library's client of an engine, with what the library and requests do not do as an engine needs it."""

from __future__ import annotations

from typing import Any

import docker


class Client(docker.APIClient):  # type: ignore[misc]  # the library has no types
    """`version` answers what the engine said first: with that the library chooses the API, and it does not change
    while a connection lasts."""

    said: dict[str, Any] | None = None
    is_podman = False

    def version(self, api_version: bool = True) -> dict[str, Any]:
        """The engine's `ApiVersion`, from its ping, where it is in the headers of each engine since 17.04.

        To answer GET /version, as for each `info`, Docker runs `runc --version` and `docker-init --version`: 7 ms.
        """
        if self.said is None:
            headers = self._greeting()
            self.is_podman = "Libpod-Api-Version" in headers
            self.said = {"ApiVersion": headers["Api-Version"]}
        return self.said

    def _greeting(self) -> Any:
        """The headers of the engine's ping. Raises what the library raises."""
        response = self._get(self._url("/_ping", versioned_api=False))
        self._raise_for_status(response)
        return response.headers

    def merge_environment_settings(self, url: str, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Let the engine's own authority count. In requests REQUESTS_CA_BUNDLE comes before a session's `verify`
        (https://github.com/psf/requests/issues/3829)."""
        verify = self.verify if verify is None else verify
        return super().merge_environment_settings(url, proxies, stream, verify, cert)
