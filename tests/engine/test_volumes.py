"""Volumes as the engine tells of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from volback.engine.engine import Engine


def test_sizes_are_returned_to_many_who_ask_at_once(
    open_engine: Callable[..., Engine], volume_factory: Callable[..., str]
) -> None:
    name = volume_factory(fill=lambda path: (path / "file").write_bytes(bytes(5000)))
    engines = [open_engine() for _ in range(4)]

    def ask(engine: Engine) -> list[int | None]:
        return [volume.size_bytes for _ in range(4) for volume in engine.volumes(sizes=True) if volume.name == name]

    with ThreadPoolExecutor(len(engines)) as pool:
        sizes = [size for found in pool.map(ask, engines) for size in found]
    assert len(sizes) == 16
    assert set(sizes) == {5000}
