"""Masking: what looks like a secret never leaves volback in an error, a log, a message, a manifest or a listing.

Secrets are known by their key (`password=`, `PGPASSWORD=`, `"token": `), by their place (`user:password@` of a URL), or
by their value, where the caller knows it. Nothing of a secret is left, not its length nor its last letters. Text of
others (an engine, a hook, a service) is masked where it enters: every VolbackError masks its own message and hint.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

HIDDEN = "***"
_SHORTEST = 4
"""A shorter value is found in many words; it is masked by its key alone."""

_WORD = r"pass(?:word|wd|phrase|code)?|pwd|secret|token|credentials?|signature|(?:api|access|private|account)[_.-]?key"
_KEY = rf"[\w.-]*(?:{_WORD})[\w.-]*|(?:[\w.-]*[_.-])?key"
_SECRET_KEY = re.compile(rf".*(?:{_WORD}|key).*", re.IGNORECASE)
_SECRET_LABEL = re.compile(rf"(?:.*[_./-])?(?:{_WORD})", re.IGNORECASE)
_QUOTED = r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'"
_VALUE = rf"(?:{_QUOTED}|[^\s,;&]+)"
"""Quoted, or up to what separates values in options, queries and commands."""
_NOTHING = r"(?!VALUE\b|\.\.\.|\*\*\*)"
"""Placeholders that volback's own hints use."""

_RULES = tuple(
    (re.compile(pattern, re.IGNORECASE), masked)
    for pattern, masked in (
        # PASSWORD=x, password="x y", --db-password=x, ?token=x&
        (rf"(?<![\w.-])((?:{_KEY})=){_NOTHING}{_VALUE}", rf"\1{HIDDEN}"),
        # "password": "x", 'token': 'x'
        (rf"([\"'](?:{_KEY})[\"']\s*:\s*){_VALUE}", rf"\1{HIDDEN}"),
        # password: x, of the output of a program; `(using password: YES)` says nothing
        (rf"(\b(?:password|passwd|passphrase|secret): +)(?!YES\b|NO\b){_NOTHING}[^\s,;'\"]+", rf"\1{HIDDEN}"),
        (r"(\b(?:bearer|basic) +)[\w.~+/=-]{8,}", rf"\1{HIDDEN}"),
        # scheme://user:password@host; of http also scheme://token@host
        (r"((?<!\S)//|\b[a-z][a-z0-9+.-]*://)([^\s/:@'\"]*:)[^\s/'\"]*@", rf"\1\2{HIDDEN}@"),
        (r"(\bhttps?://)[^\s/:@'\"]+@", rf"\1{HIDDEN}@"),
        (r"\bAGE-SECRET-KEY-1[a-z0-9]+", HIDDEN),
    )
)
_IN_COMMANDS = tuple(
    (re.compile(rf"({before}){_VALUE}", re.IGNORECASE), rf"\1{HIDDEN}")
    for before in (
        rf"(?<!\S)--?(?!no-)(?:\w+[_-])*(?:{_WORD}|requirepass|masterauth)[\w-]*\s+(?!-)",  # --password x
        r"\b(?:mysql|mariadb)[\w-]*\s[^;&|]*?(?<=\s)-p",  # mysqldump -px
        r"\b(?:mongo|sshpass|influx|couch)[\w-]*\s[^;&|]*?(?<=\s)-p\s*",
        r"\bredis[\w-]*\s[^;&|]*?(?<=\s)-a\s+",
        r"\b(?:curl|wget)\s[^;&|]*?(?<=\s)(?:-u|--user)[\s=]*",  # curl -u user:x
    )
)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"]+", re.IGNORECASE)
_FLAG = re.compile(rf"((?:^|,)(?:{_KEY})=)[^,]*", re.IGNORECASE)
_MOUNT_DATA = re.compile(rf"((?<![\w.-])(?:{_KEY})=)(?:[^,\n]*(?=: [^:,\n]*$)|[^,\n]*)", re.IGNORECASE)


def masked(text: str, values: Iterable[str] = ()) -> str:
    """The text without what its keys, its URLs, or these values show to be secret."""
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SHORTEST:
            text = text.replace(value, HIDDEN)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def masked_command(command: str) -> str:
    """A shell command without the secrets in it: variables, options, and those of well-known programs."""
    text = masked(command)
    for pattern, replacement in _IN_COMMANDS:
        text = pattern.sub(replacement, text)
    return text


def masked_mount(text: str, values: Iterable[str] = ()) -> str:
    """An engine's message. It may repeat the flags of a mount, and their values hold any character but a comma."""
    return masked(_MOUNT_DATA.sub(rf"\1{HIDDEN}", text), values)


def masked_options(options: Mapping[str, str]) -> dict[str, str]:
    """Options of a volume driver: `o=addr=nas,username=me,password=***`."""
    return {
        key: HIDDEN if is_secret_key(key) and value else masked(_FLAG.sub(rf"\1{HIDDEN}", value))
        for key, value in options.items()
    }


def masked_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels. One that is masked is lost to a restored volume, so fewer keys count than among options."""
    return {key: HIDDEN if _SECRET_LABEL.fullmatch(key) and value else masked_command(value)
            for key, value in labels.items()}  # fmt: skip


def masked_keys(options: Mapping[str, str]) -> list[str]:
    """The keys whose values masked_options has hidden, also among the flags of a mount."""
    flags = [flag.partition("=") for value in options.values() for flag in value.split(",")]
    hidden = [key for key, value in options.items() if value == HIDDEN]
    return hidden + [key for key, _, value in flags if key and value == HIDDEN]


def with_values(options: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The options with given ones in place of hidden ones, also among the flags of a mount; others are added."""
    left = dict(given)
    merged: dict[str, str] = {}
    for key, value in options.items():
        flags = [flag.partition("=") for flag in value.split(",")]
        filled = [f"{name}={left.pop(name) if hidden == HIDDEN and name in left else hidden}" if equals else name
                  for name, equals, hidden in flags]  # fmt: skip
        merged[key] = ",".join(filled)
    return {**merged, **left}


def secret_values(options: Mapping[str, str]) -> list[str]:
    """The secrets among the options of a volume driver."""
    flags = [flag.partition("=") for value in options.values() for flag in value.split(",")]
    pairs = [*options.items(), *((key, value) for key, _, value in flags)]
    return [value for key, value in pairs if is_secret_key(key) and value]


def without_url(text: str, url: str) -> str:
    """The text without any URL, and without any part of this one (user, password, tokens in its path) but its host."""
    return masked(_URL.sub(HIDDEN, text), _parts(url))


def scheme_of(url: str) -> str:
    """`mailto` of `mailto://user:password@host`: the only part of a notification's URL that may be shown."""
    scheme, colon, _ = url.partition(":")
    return scheme.lower() if colon and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,30}", scheme) else "unknown"


def _parts(url: str) -> set[str]:
    rest = url.rpartition("://")[2]
    try:
        query, host = urlsplit(url).query, urlsplit(url).hostname or ""
    except ValueError:
        query, host = "", ""
    found = {rest, *re.split(r"[/?&=:@#,]", rest), *(value for _, value in parse_qsl(query))}
    for _ in range(2):  # in the query of a message's URL a value may be encoded twice
        found |= {unquote(part) for part in found}
    return {part for part in found if part.lower() != host}


def is_secret_key(key: str) -> bool:
    """Whether a key of that name holds a secret."""
    return _SECRET_KEY.fullmatch(key) is not None


class MaskingFilter(logging.Filter):
    """For every handler that shows records: their message and their traceback come out masked."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask one record; none is left out."""
        record.msg, record.args = masked(record.getMessage()), ()
        if record.exc_info:  # another handler may have formatted it already
            text = record.exc_text or "".join(traceback.format_exception(*record.exc_info)).rstrip()
            record.exc_text = masked(text)
        return True
