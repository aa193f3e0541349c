"""What a person calls an engine, or the environment says, and where that is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from volback.engine.address import LOCAL_SOCKET, Endpoint, check_context_name, find_endpoint
from volback.engine.contexts import Tls, known_contexts
from volback.errors import UsageError

SSH = "ssh://admin@web2:2222"


class Config:
    """A configuration of the docker command, with files as docker/cli (cli/context/store) writes them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {"DOCKER_CONFIG": str(directory)}

    def context(self, name: str, host: str, *, skip_verify: bool = False) -> Path:
        """Write the metadata of a context; return the directory of its TLS material."""
        digest = hashlib.sha256(name.encode()).hexdigest()
        meta = self.directory / "contexts" / "meta" / digest / "meta.json"
        meta.parent.mkdir(parents=True)
        endpoints = {"docker": {"Host": host, "SkipTLSVerify": skip_verify}}
        meta.write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": endpoints}))
        return self.directory / "contexts" / "tls" / digest / "docker"

    def current(self, name: str) -> None:
        self.directory.mkdir(exist_ok=True)
        (self.directory / "config.json").write_text(json.dumps({"currentContext": name}))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(tmp_path / "docker")


def certificates(directory: Path, *kinds: str) -> Path:
    directory.mkdir(parents=True)
    for kind in kinds or ("ca", "cert", "key"):
        (directory / f"{kind}.pem").write_text(kind)
    return directory


def refused(given: str | None, environment: dict[str, str]) -> UsageError:
    with pytest.raises(UsageError) as raised:
        find_endpoint(given, environment)
    return raised.value


def test_an_address_is_used_as_it_is(config: Config) -> None:
    for url in ("unix:///run/docker.sock", SSH, "tcp://web2:2375", "https://web2", "ssh://[fd00::2]"):
        assert find_endpoint(url, config.environment) == Endpoint(url)


def test_without_a_name_the_order_is_that_of_the_docker_command(config: Config) -> None:
    config.context("current", "ssh://current")
    config.context("other", "ssh://other")
    assert find_endpoint(None, config.environment) == Endpoint(LOCAL_SOCKET)
    config.current("current")
    assert find_endpoint(None, config.environment) == Endpoint("ssh://current", None, "current")
    with_context = config.environment | {"DOCKER_CONTEXT": "other"}
    assert find_endpoint(None, with_context).url == "ssh://other"
    with_host = with_context | {"DOCKER_HOST": SSH}
    assert find_endpoint(None, with_host) == Endpoint(SSH)
    assert find_endpoint("current", with_host).url == "ssh://current"
    assert find_endpoint("default", with_host) == Endpoint(SSH)
    assert find_endpoint("default", with_context) == Endpoint(LOCAL_SOCKET)
    assert find_endpoint(None, with_context | {"DOCKER_HOST": ""}).url == "ssh://other"


def test_the_configuration_is_in_the_home_directory_otherwise(tmp_path: Path) -> None:
    Config(tmp_path / ".docker").context("there", SSH)
    assert find_endpoint("there", {"HOME": str(tmp_path)}) == Endpoint(SSH, None, "there")


def test_what_an_endpoint_is_called_names_its_context(config: Config) -> None:
    config.context("prod", SSH)
    assert find_endpoint("prod", config.environment).what == f"engine {SSH} (docker context 'prod')"
    assert find_endpoint(SSH, config.environment).what == f"engine {SSH}"


def test_a_context_has_its_own_certificates(config: Config) -> None:
    directory = certificates(config.context("prod", "tcp://web2:2376"))
    expected = Tls(directory / "ca.pem", directory / "cert.pem", directory / "key.pem")
    variables = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/nowhere"}
    for environment in (config.environment, config.environment | variables):
        assert find_endpoint("prod", environment).tls == expected
    authority = certificates(config.context("system", "tcp://web3:2376"), "ca") / "ca.pem"
    assert find_endpoint("system", config.environment).tls == Tls(authority)
    config.context("careless", "tcp://web4:2376", skip_verify=True)
    assert find_endpoint("careless", config.environment).tls == Tls(is_verified=False)


def test_certificates_of_the_environment_are_for_tcp_alone(config: Config, tmp_path: Path) -> None:
    directory = certificates(tmp_path / "certificates")
    environment = config.environment | {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(directory)}
    expected = Tls(directory / "ca.pem", directory / "cert.pem", directory / "key.pem")
    url = "tcp://web2:2376"
    assert find_endpoint(url, environment).tls == expected
    assert find_endpoint(None, environment | {"DOCKER_HOST": url}).tls == expected
    assert find_endpoint(SSH, environment).tls is None
    assert find_endpoint("unix:///run/docker.sock", environment).tls is None
    assert find_endpoint(url, config.environment | {"DOCKER_CERT_PATH": str(directory)}).tls is None


def test_without_certificates_of_its_own_a_client_still_checks_the_engines(config: Config) -> None:
    authority = certificates(config.directory, "ca") / "ca.pem"
    found = find_endpoint("tcp://web2:2376", config.environment | {"DOCKER_TLS_VERIFY": "1"})
    assert found.tls == Tls(authority)
    unverified = find_endpoint("tcp://web2:2376", config.environment | {"DOCKER_TLS": "1"})
    assert unverified.tls == Tls(is_verified=False)


def test_an_authority_that_is_to_be_checked_and_is_not_there_is_named(config: Config) -> None:
    error = refused("tcp://web2:2376", config.environment | {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/no"})
    assert error.message == "certificate /no/ca.pem does not exist, and DOCKER_TLS_VERIFY is set"


def test_an_unknown_name_is_refused_and_the_known_ones_are_named(config: Config) -> None:
    config.context("prod", SSH)
    broken = config.directory / "contexts" / "meta" / "broken"
    broken.mkdir()
    (broken / "meta.json").write_text("{")
    error = refused("prdo", config.environment)
    assert error.message == "engine 'prdo' is neither an address nor a docker context"
    assert error.hint is not None
    assert error.hint.startswith("docker contexts: default, prod; an address is like unix:")
    error = refused(None, config.environment | {"DOCKER_CONTEXT": "prdo"})
    assert error.message == "docker context 'prdo', which DOCKER_CONTEXT names, does not exist"
    assert error.hint == "docker contexts: default, prod"
    config.current("gone")
    assert "'gone', which docker's configuration names, does not exist" in refused(None, config.environment).message


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("/run/docker.sock", "for a socket: unix:///run/docker.sock"),
        ("admin@web2", "over ssh: ssh://admin@web2"),
        ("web2:2375", "like unix:///var/run/docker.sock, ssh://HOST or tcp://HOST:2376"),
        ("npipe:////./pipe/docker", "like unix:///var/run/docker.sock, ssh://HOST or tcp://HOST:2376"),
    ],
)
def test_what_lacks_its_scheme_gets_the_address_that_was_perhaps_wanted(config: Config, given: str, hint: str) -> None:
    error = refused(given, config.environment)
    assert error.message == f"engine {given!r} is not an engine address"
    assert error.hint == hint


@pytest.mark.parametrize("given", ["ssh://", "tcp://:2375", "tcp://web2:99999", "tcp://web2:0", "tcp://[::1"])
def test_an_address_with_a_part_that_is_not_valid_is_refused(config: Config, given: str) -> None:
    assert given in refused(given, config.environment).message


def test_a_password_in_an_address_is_refused_and_not_repeated(config: Config) -> None:
    for url in ("ssh://admin:s3cret@web2", "tcp://admin:s3cret@web2:99999"):
        for given, environment in ((url, {}), (None, {"DOCKER_HOST": url})):
            error = refused(given, config.environment | environment)
            assert "takes no password" in error.message
            assert "s3cret" not in f"{error.message} {error.hint}"


@pytest.mark.parametrize("text", ["[]", "{", '{"Name": "prod"}', '{"Endpoints": {"docker": {}}}'])
def test_a_context_whose_metadata_is_damaged_is_named(config: Config, text: str) -> None:
    config.context("prod", SSH)
    (meta,) = (config.directory / "contexts" / "meta").glob("*/meta.json")
    meta.write_text(text)
    assert "docker context 'prod'" in refused("prod", config.environment).message
    assert known_contexts(config.environment) == ["default", "prod"] if "Name" in text else ["default"]


def test_a_context_with_an_address_that_is_not_valid_is_named(config: Config) -> None:
    config.context("prod", "web2")
    assert (
        "engine 'web2' of docker context 'prod' is not an engine address" in refused("prod", config.environment).message
    )


def test_a_configuration_that_is_damaged_is_named(config: Config) -> None:
    config.directory.mkdir()
    file = config.directory / "config.json"
    file.write_text("not JSON")
    assert refused(None, config.environment).message == f"docker's configuration {file} cannot be read: it is not JSON"


def test_only_a_name_is_taken_for_a_context() -> None:
    assert check_context_name("prod.eu-1") == "prod.eu-1"
    for name in ("ssh://web2", "", "../prod"):
        with pytest.raises(UsageError, match="is not the name of a docker context"):
            check_context_name(name)
