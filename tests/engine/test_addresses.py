"""Engines by address: contexts as the docker command writes them, over a socket, over ssh, and over TLS."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.contexts import Contexts
from tests.support.cutting import CuttingRelay
from tests.support.engine import Volback
from tests.support.fingerprint import differences, fingerprint
from tests.support.remote import Relay, SecondEngine, second_engine, ssh_server

SOCKET = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
PORT = 2376
"""On the engine's own loopback."""


class TlsEngine:
    """An engine that serves TLS on the loopback, and asks each client for a certificate."""

    def __init__(self, engine: SecondEngine, url: str, authority: Authority, certificates: Path) -> None:
        self.engine = engine
        self.url = url
        self.authority = authority
        self.certificates = certificates
        """Of a client."""

    @property
    def environment(self) -> dict[str, str]:
        return {"DOCKER_HOST": self.url, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(self.certificates)}


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsEngine]:
    directory = tmp_path_factory.mktemp("tls")
    authority = Authority("volback-test")
    server, client = authority.write(directory / "server", "engine"), authority.write(directory / "client", "client")
    files = [("cacert", "ca"), ("cert", "cert"), ("key", "key")]
    options = [
        "--host",
        f"tcp://127.0.0.1:{PORT}",
        "--tlsverify",
        *(f"--tls{option}={server / name}.pem" for option, name in files),
    ]
    with second_engine(options) as engine, Relay(engine, port=PORT) as relay:
        yield TlsEngine(engine, relay.url, authority, client)


@pytest.fixture
def contexts(tmp_path: Path) -> Contexts:
    return Contexts(tmp_path / "docker")


@pytest.fixture(scope="module")
def volume(second: SecondEngine) -> str:
    """A volume that the second engine alone has."""
    with closing(second.client()) as client:
        return str(client.volumes.create("only-there").name)


def is_there(run_volback: Volback, volume: str, *options: str, env: dict[str, str]) -> bool:
    """Whether a command reaches the engine that has the volume."""
    environment = {"DOCKER_HOST": ""} | env
    found = run_volback(*options, "volumes", "--no-sizes", "--json", env=environment).json["result"]["volumes"]
    return volume in {item["name"] for item in found}


def test_a_context_names_an_engine_however_it_is_given(
    run_volback: Volback, second: SecondEngine, volume: str, contexts: Contexts
) -> None:
    contexts.create("there", second.url)
    environment = contexts.environment
    for options in (("--host", "there"), ("--context", "there")):
        assert is_there(run_volback, volume, *options, env=environment)
    assert is_there(run_volback, volume, env=environment | {"DOCKER_CONTEXT": "there"})
    assert not is_there(run_volback, volume, env=environment)
    contexts.use("there")
    assert is_there(run_volback, volume, env=environment)
    assert not is_there(run_volback, volume, "--context", "default", env=environment)


def test_a_context_over_ssh(
    run_volback: Volback, second: SecondEngine, volume: str, contexts: Contexts, tmp_path: Path
) -> None:
    with ssh_server(tmp_path / "ssh", second) as (url, programs):
        contexts.create("there", url)
        environment = contexts.environment | {"PATH": f"{programs}:{os.environ['PATH']}"}
        assert is_there(run_volback, volume, "--context", "there", env=environment)


def test_a_wrong_name_is_one_line_with_the_names_that_are_known(run_volback: Volback, contexts: Contexts) -> None:
    contexts.create("prod", "ssh://web2")
    failed = run_volback("--host", "prdo", "volumes", env=contexts.environment, check_exit=2)
    first, hint = failed.stderr.splitlines()
    assert first == "error: engine 'prdo' is neither an address nor a docker context"
    assert hint.startswith("hint: docker contexts: default, prod; an address is like ")
    elsewhere = run_volback("migrate", "db", "--to", "prdo", env=contexts.environment, check_exit=2)
    assert elsewhere.stderr.splitlines() == [first, hint]
    silent = run_volback("migrate", "db", "--to", "unix:///no.sock", "--from", "unix:///no.sock", check_exit=8)
    assert silent.stderr.splitlines()[1] == "hint: start the engine, or name another with --to"
    run_volback("--host", "prod", "--context", "prod", "volumes", env=contexts.environment, check_exit=2)
    run_volback("--context", "ssh://web2", "volumes", env=contexts.environment, check_exit=2)


def test_a_volume_is_backed_up_and_restored_over_tls(run_volback: Volback, tls: TlsEngine, contexts: Contexts) -> None:
    """Through the attach connection: records of TLS are shorter than what is read at once."""
    with closing(tls.engine.client()) as client:
        path = Path(client.volumes.create("far").attrs["Mountpoint"])
        (path / "random").write_bytes(os.urandom(9 << 20))
        others = {"REQUESTS_CA_BUNDLE": str(tls.certificates / "cert.pem")}  # for other servers than this one
        attach = tls.environment | others | {"VOLBACK_TRANSPORT": "attach"}
        run_volback("backup", "far", env=attach)
        contexts.create("there", tls.url, certificates=tls.certificates)
        context = contexts.environment | {"VOLBACK_TRANSPORT": "attach", "DOCKER_HOST": ""}
        run_volback("--context", "there", "restore", "far", "--as", "near", "--prove", env=context)
        assert client.containers.list(all=True, ignore_removed=True) == []
        for volume in client.volumes.list():
            volume.remove()


def test_an_engine_that_wants_tls_or_another_certificate_is_explained(
    run_volback: Volback, tls: TlsEngine, tmp_path: Path
) -> None:
    failed = run_volback("volumes", env={"DOCKER_HOST": tls.url}, check_exit=8)
    first, hint = failed.stderr.splitlines()
    assert first == f"error: engine {tls.url}: the engine wants TLS"
    assert hint.startswith("hint: set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH")
    other = Authority("stranger").write(tmp_path / "other", "client")
    failed = run_volback("volumes", env=tls.environment | {"DOCKER_CERT_PATH": str(other)}, check_exit=8)
    first, hint = failed.stderr.splitlines()
    assert "certificate verify failed" in first
    assert "DOCKER_CERT_PATH" in hint
    shutil.copy(tls.certificates / "ca.pem", other / "ca.pem")
    failed = run_volback("volumes", env=tls.environment | {"DOCKER_CERT_PATH": str(other)}, check_exit=8)
    assert len(failed.stderr.splitlines()) == 2


def test_tls_to_an_engine_without_it_is_explained(run_volback: Volback, second: SecondEngine, tls: TlsEngine) -> None:
    with Relay(second) as relay:
        failed = run_volback("volumes", env=tls.environment | {"DOCKER_HOST": relay.url}, check_exit=8)
    first, hint = failed.stderr.splitlines()
    assert first.startswith("error: engine tcp://127.0.0.1:")
    assert hint.startswith("hint: check that it speaks TLS")


@pytest.mark.parametrize("away", [True, pytest.param(False, marks=pytest.mark.long)], ids=["to it", "from it"])
def test_a_move_over_tls_goes_on_after_its_connections_were_reset(
    away: bool, run_volback: Volback, tls: TlsEngine, far_state: dict[str, str],
    *, volume_factory: Callable[..., str], volume_name: Callable[..., str], volume_path: Callable[[str], Path],
) -> None:  # fmt: skip
    """By RST, as of a firewall that has forgotten them: no end of TLS is announced."""

    def fill(path: Path) -> None:
        for number in range(6):
            (path / f"file-{number}").write_bytes(os.urandom(2 << 20))

    environment = tls.environment | far_state | {"DOCKER_HOST": ""}
    run_volback("--host", tls.engine.url, "doctor", check_exit=None)  # so that it has a helper image
    with closing(tls.engine.client()) as client:
        far, near = Path(client.volumes.create("far").attrs["Mountpoint"]), volume_name("near")
        fill(far)
        with CuttingRelay(tls.engine, [5 << 20], port=PORT, resets=True, of_answers=not away) as relay:
            way = (volume_factory(fill=fill), "--to", relay.url, "--as", "came") if away else (
                "far", "--from", relay.url, "--to", SOCKET, "--as", near
            )  # fmt: skip
            said = run_volback("migrate", *way, "--json", env=environment).json
        here, there = (way[0], "came") if away else (near, "far")
        assert (said["result"]["proven"], said["result"]["retries"]) == (True, 1)
        assert "was lost, and the move goes on" in said["warnings"][0]
        assert differences(fingerprint(volume_path(here)), fingerprint(tls.engine.volume_path(there))) == []
        assert client.containers.list(all=True, ignore_removed=True) == []
        for volume in client.volumes.list():
            volume.remove()
