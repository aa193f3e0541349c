"""Rescue: rebuild the tar stream of a backup, full or an increment, from a repository in a directory.

    python3 rescue.py REPOSITORY HOST/VOLUME[@ID] [IDENTITY] > volume.tar

Without an ID, it takes the latest backup. IDENTITY is a file with the identity of an encrypted repository; the program
`age` is then needed, and room for the backup's objects in $TMPDIR. It needs Python 3.8 or newer and the program `zstd`,
and not volback; it follows docs/reference/format.md. Every byte is compared with its SHA-256 before it is written. At
the first thing that does not fit it ends with exit code 1: what it has written so far is then not a whole backup.
"""

import base64
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ID = "[0-9]{8}T[0-9]{6}Z-[0-9a-f]{4}"
SEALED = re.compile(rb'(.*),\n  "sha256": "([0-9a-f]{64})"\n}\n', re.DOTALL)
PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
AGE, OPENED = [], {}  # the command that decrypts, where the repository is encrypted, and what it has decrypted
FRAME_MAX_BYTES, BATCH_FRAMES, BATCH_EXTENTS = 8 * 1024 * 1024, 32, 100_000


def main(repository, name, identity=None):
    check(not sys.stdout.isatty(), "write the stream into a file or a pipe: > volume.tar")
    read_sealed(Path(repository, "volback.json"))
    asked, backup_id = re.fullmatch(f"(.*?)(?:@({ID}))?", name, re.DOTALL).groups()
    directory = Path(repository, *map(encoded, asked.split("/", 1)))
    ids = sorted(path.parent.name for path in directory.glob(f"{backup_id or '*T*Z-*'}/manifest*.json"))
    check(ids, f"there is no backup {name} in {repository}")
    manifest = read_manifest(directory / ids[-1])
    place = encoded(manifest["host"]), encoded(manifest["volume"]), manifest["id"]
    manifest = with_private(manifest, identity) if "private" in manifest else manifest
    check(place == (*directory.parts[-2:], ids[-1]), f"the manifest of {ids[-1]} is of another backup")
    print(f"rescue: {manifest['kind']} backup {asked}@{ids[-1]}", file=sys.stderr)
    with tempfile.TemporaryFile() as index, open(1, "wb", closefd=False) as stream:
        copy_lines(directory, manifest, index)
        write_stream(directory, manifest, index, stream)


def read_manifest(directory):
    """Its highest revision that is valid: repacking writes manifest.2.json, and so on."""
    *others, last = sorted(directory.glob("manifest*.json"), key=lambda path: (len(path.name), path.name))
    try:
        return read_sealed(last)
    except ValueError as exc:
        valid = [read_sealed(path) for path in others]
        check(valid, exc)
        return valid[-1]


def objects(directory, manifest, kind):
    """The paths of its data or index objects by what indexes call them: ID, or ID.N of a later revision."""
    index = "index.jsonl.zst" if manifest.get("revision", 1) == 1 else f"index.{manifest['revision']}.jsonl.zst"
    own = {"index": index, "data": "data.tar.zst" if manifest["kind"] == "full" else "data.zst"}
    used = [(used["id"], used["name"]) for used in manifest["uses"] if used["name"].startswith(kind)]
    names = [(manifest["id"], own[kind]), *used]
    return {backup_id + "".join(re.findall(r"\.\d+", name)): directory / backup_id / name for backup_id, name in names}


def copy_lines(directory, manifest, index):
    """Write the lines of the index, all runs in order, each one verified."""
    paths = objects(directory, manifest, "index")
    own_id, own_path = next(iter(paths.items()))
    own = Path(plain(own_path)).read_bytes()
    check(sha256(own).hex() == manifest["index"]["sha256"], f"{own_path} is damaged")
    runs = [[own_id, 0, len(own), base64.b64encode(sha256(own))]]
    if manifest["index_table_bytes"]:
        runs = json.load(decompress(own[-manifest["index_table_bytes"] :], tempfile.TemporaryFile()))["runs"]
    for object_id, *place, dictionary in (run if run[4:] else [*run, None] for run in runs):
        with tempfile.NamedTemporaryFile() as lines:
            if dictionary:
                decompress(read_part(paths[dictionary[0]], *dictionary[1:]), lines)
            decompress(read_part(paths[object_id], *place), index, *(["-D", lines.name] if dictionary else []))


def write_stream(directory, manifest, lines, stream):
    paths = objects(directory, manifest, "data")
    for batch, frames in batches(read_extents(lines, manifest)):
        with tempfile.TemporaryFile() as stored:
            for object_id, offset, stored_bytes, raw_bytes in frames:
                check(0 <= raw_bytes <= FRAME_MAX_BYTES, "the index names an impossible frame")
                stored.write(read_part(paths[object_id], offset, stored_bytes))
            stored.seek(0)
            with subprocess.Popen(["zstd", "-dcq", "--no-check"], stdin=stored, stdout=subprocess.PIPE) as raw:
                raw_frames = {frame: raw.stdout.read(frame[3]) for frame in frames}
        for frame in frames:  # zstd ends at the first one that is damaged
            check(len(raw_frames[frame]) == frame[3], f"{paths[frame[0]]} is damaged")
        for frame, start, size, digest in batch:
            extent = raw_frames[frame][start : start + size]
            check(sha256(extent) == digest, f"{paths[frame[0]]} is damaged")
            stream.write(extent)


def read_extents(lines, manifest):
    """Yield (frame, start, size, digest) in stream order, and compare what the index says with the manifest."""
    whole, raw_bytes = hashlib.sha256(), 0
    for line in lines:
        unit = json.loads(line)
        digests = [base64.b64decode(piece[3]) for piece in unit["pieces"]]
        check(sha256(b"".join(digests)) == base64.b64decode(unit["digest"]), "an index line contradicts itself")
        whole.update(base64.b64decode(unit["digest"]))
        for (number, start, sizes, _), digest in zip(unit["pieces"], digests):
            frame = tuple(unit["frames"][number])
            for at, size in enumerate(sizes):
                yield frame, start, size, digest[32 * at : 32 * at + 32]
                start, raw_bytes = start + size, raw_bytes + size
    check([whole.hexdigest(), raw_bytes] == [manifest["digest"], manifest["raw_bytes"]], "the index is incomplete")


def batches(extents):
    """Group extents, with the frames that hold them: one zstd decompresses those of a group."""
    batch, frames = [], set()
    for extent in extents:
        if (len(frames) >= BATCH_FRAMES and extent[0] not in frames) or len(batch) >= BATCH_EXTENTS:
            yield batch, sorted(frames)
            batch, frames = [], set()
        batch.append(extent)
        frames.add(extent[0])
    yield batch, sorted(frames)


def read_sealed(path):
    return unsealed(path.read_bytes(), path)


def unsealed(data, what):
    """A document whose last field is the SHA-256 of everything before it."""
    sealed = SEALED.fullmatch(data)
    check(sealed and sha256(sealed[1]).hex().encode() == sealed[2], f"{what} is damaged")
    document = json.loads(sealed[1] + b"}")
    check(document["format"] == 1, f"{what} is not of format 1")
    return document


def with_private(manifest, identity):
    """The manifest of an encrypted backup, with what of it is encrypted."""
    check(identity, "the repository is encrypted: name the file of its identity (age -d -i YOURS keys/NAME.age)")
    AGE[:] = ["age", "-d", "-i", identity]
    sealed = subprocess.run(AGE, input=base64.b64decode(manifest["private"]), stdout=subprocess.PIPE).stdout
    private = unsealed(sealed, "the private part of the manifest")
    check(private["backup"].endswith("@" + manifest["id"]), "the private part of the manifest is of another backup")
    return {**manifest, "digest": private["digest"], "index": {"sha256": private["index_sha256"]}}


def plain(path):
    """The file of an object; of an encrypted one, a temporary file with what it holds."""
    if AGE and path not in OPENED:
        check(Path(f"{path}.age").exists(), f"{path}.age is missing")
        OPENED[path] = tempfile.NamedTemporaryFile()
        done = subprocess.run([*AGE, f"{path}.age"], stdout=OPENED[path])
        check(done.returncode == 0, f"{path}.age is damaged")
    return OPENED[path].name if AGE else path


def read_part(path, offset, size, digest=None):
    with open(plain(path), "rb") as file:
        file.seek(offset)
        part = file.read(size)
    check(len(part) == size, f"{path} is cut short")
    check(digest is None or sha256(part) == base64.b64decode(digest), f"{path} is damaged")
    return part


def decompress(data, file, *options):
    """Add what zstd makes of the data to a file, and return that, at its beginning."""
    file.seek(0, 2)
    subprocess.run(["zstd", "-dcq", *options], input=data, stdout=file, check=True)
    file.seek(0)
    return file


def encoded(name):
    """A name as part of a key; of one that is too long, its beginning and a digest."""
    plain = b"" if name in (".", "..") else PLAIN
    parts = ["".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in char.encode()) for char in name]
    if len("".join(parts)) > 255:
        while len("".join(parts)) > 180:
            parts.pop()
        parts.append("%E2%80%A6" + sha256(name.encode()).hex()[:32])
    return "".join(parts)


def sha256(data):
    return hashlib.sha256(data).digest()


def check(fits, what):
    if not fits:
        raise ValueError(what)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:]) if len(sys.argv) in (3, 4) else sys.exit(__doc__)
    except Exception as exc:  # JSON that is not as expected raises many kinds
        sys.exit(f"rescue: {type(exc).__name__}: {exc}")
