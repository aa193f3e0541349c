"""Pictures of what users see: three screens of a terminal of 80 columns, and the pages of the documentation's site.

    python -m scripts.screenshots DIRECTORY [PAGE...]    all pages, or those with such a word in their path

They are made in Chromium (Debian package `chromium`), to be looked at; they are not kept. It ends with 1 where a page
is wider than its window, of 1280 points or of 400 as on a telephone, or a table is too wide for the first.
"""

from __future__ import annotations

import fcntl
import functools
import http.server
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.support.repository import make_backup
from volback.catalog.model import SetOf
from volback.state.history import JobRun, note_run
from volback.store.local import LocalStore

PROJECT = Path(__file__).resolve().parents[1]
COLUMNS = 80
SCREENS = {"status": ["status"], "list": ["list"], "help": ["--help"]}
WIDTHS = (1280, 400)
_CONFIG = """
[repositories.main]
url = "{place}/repository"

[jobs.shop]
repository = "main"
project = "shop"
schedule = "30 2 * * *"

[jobs.nightly]
repository = "main"
volumes = ["wiki_attachments-of-the-whole-department", "gitea"]
schedule = "0 0 * * *"
"""
_MEASURE = """<script>
async function measure() {
  const found = [];
  for (const [page, width] of PAGES) {
    const frame = document.createElement("iframe");
    frame.style = `width: ${width}px; height: 800px; border: 0`;
    await new Promise(done => { frame.onload = done; frame.src = page; document.body.append(frame) });
    await new Promise(done => setTimeout(done, 100));
    const root = frame.contentDocument.documentElement;
    if (root.scrollWidth > width) found.push([page, width, "page", root.scrollWidth]);
    for (const box of frame.contentDocument.querySelectorAll(".md-typeset__scrollwrap"))
      if (box.scrollWidth > box.clientWidth) found.push([page, width, "table", box.scrollWidth, box.clientWidth]);
    frame.remove();
  }
  document.body.innerHTML = `<pre>FOUND${JSON.stringify(found)}END</pre>`;
}
addEventListener("load", measure);
</script><body></body>"""


def make_place(place: Path) -> dict[str, str]:
    """A configuration with backups that were made up, some of them late; the environment in which it is used."""
    store, now = LocalStore(place / "repository"), datetime.now(UTC)
    made = SetOf(id="20261126T023000Z-5e7a", project="shop", volumes=["shop_db", "shop_uploads"])
    for hours in (50, 26, 2):
        for volume in made.volumes:
            make_backup(store, _id(now - timedelta(hours=hours)), volume=volume, data_bytes=40_000 * hours, set=made)
    make_backup(store, _id(now - timedelta(days=9)), volume="wiki_attachments-of-the-whole-department")
    make_backup(store, _id(now - timedelta(days=2)), volume="9c1f" * 16)
    file = place / "volback.toml"
    file.write_text(_CONFIG.format(place=place))
    started = (now - timedelta(hours=2)).isoformat(timespec="milliseconds")
    note_run(place / "state", "shop", JobRun(id="1", started_at=started, ended_at=started, status="success", volumes=2))
    own = {key: value for key, value in os.environ.items() if not key.startswith("VOLBACK_")}
    return own | {
        "VOLBACK_CONFIG": str(file), "VOLBACK_STATE_DIR": str(place / "state"), "VOLBACK_HOSTNAME": "web1",
        "VOLBACK_CACHE": str(place / "cache"), "DOCKER_HOST": f"unix://{place}/no.sock", "TERM": "xterm-256color",
        "PYTHONPATH": str(PROJECT),
    }  # fmt: skip


def screen(arguments: list[str], environment: dict[str, str], *, columns: int = COLUMNS) -> str:
    """What volback writes to a terminal of that width, as it is."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    command = [sys.executable, "-m", "volback", *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment):
        os.close(theirs)
        text = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    return text.decode().replace("\r\n", "\n")


def pictures_of_screens(directory: Path) -> None:
    """A text and a picture of each screen."""
    # A short path: the repository's address is shown.
    with tempfile.TemporaryDirectory(prefix="v") as place:
        environment = make_place(Path(place))
        said = {name: screen(arguments, environment) for name, arguments in SCREENS.items()}
    for name, text in said.items():
        (directory / f"{name}.txt").write_text(text)
        with open(os.devnull, "w") as nowhere:
            console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
            console.print(Text.from_ansi(f"$ volback {' '.join(SCREENS[name])}\n{text}"), soft_wrap=False)
        picture = directory / f"{name}.svg"
        console.save_svg(str(picture), title="80 columns")
        height = 90 + 25 * (text.count("\n") + 2)
        _chromium(f"--screenshot={directory / name}.png", f"--window-size=1010,{height}", picture.as_uri())


def pictures_of_pages(directory: Path, words: list[str]) -> list[str]:
    """A picture of each page at each width; what is wider than its window, in words."""
    with tempfile.TemporaryDirectory() as site:
        subprocess.run([PROJECT / "scripts/docs", site], check=True)
        pages = sorted(str(path.parent.relative_to(site)) for path in Path(site).rglob("index.html"))
        pages = [page for page in pages if not words or any(word in page for word in words)]
        with _served(Path(site)) as address:
            for page in pages:
                for width in WIDTHS:
                    # Chromium has no window of less than 500 points: but a frame may be narrower.
                    style = f"width: {width}px; height: 2500px; border: 0"
                    Path(site, "frame.html").write_text(
                        f'<body style="margin: 0"><iframe src="/{page}/" style="{style}">'
                    )
                    name = f"{page.replace('/', '-').strip('.') or 'start'}-{width}.png"
                    size = f"--window-size={max(width, 500)},2500"
                    _chromium(f"--screenshot={directory / name}", size, f"{address}/frame.html")
            asked = json.dumps([[f"/{page}/", width] for page in pages for width in WIDTHS])
            Path(site, "measure.html").write_text(_MEASURE.replace("PAGES", asked, 1))
            said = _chromium("--dump-dom", "--virtual-time-budget=600000", f"{address}/measure.html")
    found = re.search(r"<pre>FOUND(\[.*?\])END", said)
    assert found, "Chromium did not measure the pages"
    return [
        f"{page} at {width}: the {what} is {wide} wide{f', its box {box[0]}' if box else ''}"
        for page, width, what, wide, *box in json.loads(found[1])
        if what == "page" or width == WIDTHS[0]
    ]


def _id(made: datetime) -> str:
    return f"{made:%Y%m%dT%H%M%SZ}-3f9c"


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # the other side is closed
        return b""


@contextmanager
def _served(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _chromium(*arguments: str) -> str:
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def main(directory: Path, words: list[str]) -> int:
    """Make all of them."""
    directory.mkdir(parents=True, exist_ok=True)
    pictures_of_screens(directory)
    wide = pictures_of_pages(directory, words)
    print(*wide, f"{len(list(directory.glob('*.png')))} pictures in {directory}", sep="\n")
    return 1 if wide else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
