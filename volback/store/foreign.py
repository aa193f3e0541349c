"""Addresses that other programs have for what volback has no store for, or another form of address. Pure.

Used by store.locate. Without it `sftp:host:/path` would be a directory of that name here: a backup into it succeeds,
and is not where it was meant to be. No answer repeats what may be a password.
"""

from __future__ import annotations

import re

from volback.store.s3.endpoint import endpoint_form, is_host, of_aws

_WINDOWS = re.compile(r"[A-Za-z]:([\\/]|$)|\\\\")
_CUT_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)//")
_MOUNT = "mount it here, and give the path of the mount point"
_SSH = "mount it here (sshfs), and give the path of the mount point, or serve it as S3 (rclone serve s3)"
_RCLONE = "mount it here (rclone mount), and give the path of the mount point, or serve it as S3 (rclone serve s3)"
_ADVICE = {
    **dict.fromkeys(("sftp", "ssh", "scp", "rsync", "sshfs"), _SSH),
    **dict.fromkeys(("smb", "cifs", "nfs", "afp"), _MOUNT),
    **dict.fromkeys(
        ("azure", "azblob", "az", "wasb", "wasbs", "abfs", "abfss", "swift", "rclone", "dropbox", "onedrive", "gdrive",
         "drive", "webdav", "webdavs", "dav", "davs", "ftp", "ftps"), _RCLONE),
    "rest": "that is a server of restic, which stores restic's repositories only",
    **dict.fromkeys(
        ("gs", "gcs"),
        "write s3://BUCKET/PREFIX?endpoint=https://storage.googleapis.com, and set an HMAC key as AWS_ACCESS_KEY_ID "
        "and AWS_SECRET_ACCESS_KEY",
    ),
    "b2": "write s3://BUCKET/PREFIX?endpoint=https://s3.REGION.backblazeb2.com, and set an application key as "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}  # fmt: skip
"""By what stands before the colon."""
_OURS = ("s3", "file", "http", "https")
_OF_THAT_NAME = "a directory of that name is ./NAME"


def advice_for_scheme(url: str) -> str | None:
    """What to write instead of a URL whose scheme no store is registered for; None if that is not known."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() in ("http", "https"):
        return f"for a bucket write {s3_form(url)}"
    if scheme.lower() in ("s3a", "s3n", "minio"):
        return f"write {s3_form('/' + rest)}"
    return _ADVICE.get(scheme.lower())


def foreign_path(address: str) -> tuple[str, str] | None:
    """For an address without `://` that is not a path: what of it may be shown, and what to write instead."""
    if _WINDOWS.match(address):
        return address, "give a path of this machine; a share or drive of Windows has one once it is mounted"
    if re.match(r"//(?!/)", address):
        return address, f"a share of another machine: {_MOUNT}; a directory is written with one slash"
    cut = _CUT_SCHEME.match(address)
    if cut and (cut[1].lower() in _OURS or cut[1].lower() in _ADVICE):
        return f"{cut[1]}//...", _advice(cut[1].lower(), address[cut.end() - 1 :])
    first, colon, _ = address.partition("/")[0].partition(":")
    if not colon:
        return None
    return f"{first}:...", f"{_advice(first.lower(), address[len(first) + 1 :])}; {_OF_THAT_NAME}"


def _advice(scheme: str, rest: str) -> str:
    match scheme:
        case "s3":
            return f"write {s3_form(rest)}"
        case "file":
            return "write file:///PATH, or the path alone"
        case "http" | "https":
            return f"for a bucket write {s3_form(scheme + '://' + rest.lstrip('/'))}"
        case _:
            return _ADVICE.get(scheme, f"a path on another machine: {_SSH}")


def s3_form(address: str) -> str:
    """The s3:// URL for `HOST/BUCKET/PREFIX` (with or without a scheme), `/BUCKET/PREFIX` or `BUCKET/PREFIX`.

    What is not known stands in capital letters, as does everything that may be a secret.
    """
    scheme, found, rest = address.partition("?")[0].rpartition("://")
    host, _, path = rest.partition("/")
    if not found and host and not is_host(host):  # restic has a host here, others the bucket
        host, path = "", f"{host}/{path}"
    bucket, _, prefix = path.lstrip("/").partition("/")
    if (aws := of_aws(host)) and aws.bucket:
        bucket, prefix = aws.bucket, path
    return endpoint_form(scheme or "https", host, bucket, prefix.strip("/"))
