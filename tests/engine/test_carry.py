"""The helper image comes over from another engine."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.engine.conftest import Opener
from tests.support.api_proxy import ApiProxy
from tests.support.engine import EngineSession, build_image
from tests.support.remote import SecondEngine
from volback.engine.engine import Engine
from volback.errors import EngineError
from volback.moving.carry import carry_image


@pytest.fixture
def own_image(engine: EngineSession) -> Iterator[str]:
    """An image that this engine alone has."""
    tag = f"volback-test-{secrets.token_hex(6)}:1"
    build_image(engine.client, tag, engine.labels)
    yield tag
    engine.client.images.remove(tag)


def of_image(url: str | None, image: str) -> Engine:
    return Engine(url, client_id=lambda: "test", image=image)


def test_an_image_that_only_the_source_has_is_carried_over_once(own_image: str, second: SecondEngine) -> None:
    source, target = of_image(None, own_image), of_image(second.url, own_image)
    assert carry_image(source, target) == f"the helper image was carried over to host {second.name}"
    assert target.has_image()
    assert carry_image(source, target) is None
    assert carry_image(source, source) is None


def test_the_image_that_volback_makes_is_carried_over_and_used(
    open_engine: Opener, second: SecondEngine, directory: Callable[[], Path]
) -> None:
    source, target = open_engine(), open_engine("attach", second.url)
    with closing(second.client()) as client:
        for image in client.images.list("volback-helper"):
            client.images.remove(image.id, force=True)
    assert carry_image(source, target) is not None
    assert target.probe(run="run", directory=directory(), size_bytes=1000).size_bytes == 1000


@contextmanager
def of_another_processor(second: SecondEngine, socket: Path) -> Iterator[str]:
    """The address of an engine that says that its processor is another one."""
    with closing(second.client()) as client:
        info = client.info() | {"Architecture": "riscv64"}
    own = {"/info": json.dumps(info).encode()}
    with ApiProxy(socket, engine=second.directory / "docker.sock", own_answers=own) as proxy:
        yield proxy.url


def test_for_another_processor_the_error_says_what_to_do(own_image: str, second: SecondEngine, tmp_path: Path) -> None:
    with of_another_processor(second, tmp_path / "engine.sock") as url:
        target = of_image(url, own_image)
        with pytest.raises(EngineError) as raised:
            carry_image(of_image(None, own_image), target)
        assert not target.has_image()
    assert raised.value.message.startswith(f"helper image {own_image} is for amd64, and the engine of host ")
    assert "is riscv64; none can be pulled there: " in raised.value.message
    assert raised.value.hint is not None
    assert raised.value.hint.endswith("name it with --helper-image IMAGE")


def test_for_another_processor_an_image_that_is_there_is_used(
    own_image: str, second: SecondEngine, tmp_path: Path
) -> None:
    with closing(second.client()) as client:
        build_image(client, own_image, {})
    with of_another_processor(second, tmp_path / "engine.sock") as url:
        assert carry_image(of_image(None, own_image), of_image(url, own_image)) is None
