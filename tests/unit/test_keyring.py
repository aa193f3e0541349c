"""The keyring: where the identities of a repository come from, and what is said where none opens it."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest

from volback.archive.age import encrypt
from volback.archive.age_keys import Identity, Recipient
from volback.config import secrets
from volback.encryption.environment import sources_of
from volback.encryption.keyring import Keyring
from volback.encryption.sources import Sources, identity_file, passphrase_file
from volback.errors import IdentityNeeded, UsageError
from volback.store.memory import MemoryStore

OWN, PERSON, STRANGER = Identity.new(), Identity.new(), Identity.new()
QUICK = 4
"""Of scrypt: a test needs no protection."""


def key_file(store: MemoryStore, name: str, *identities: Identity, to: Recipient | str) -> None:
    """Put keys/NAME.age, for a recipient or for a passphrase."""
    text = "\n".join(["# made by a test", *map(str, identities), ""]).encode()
    passphrase, recipients = (to, []) if isinstance(to, str) else (None, [to])
    store.put(f"keys/{name}.age", encrypt([text], recipients, passphrase=passphrase, work_factor=QUICK))


def file_of(path: Path, text: object) -> Path:
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return path


def keyring(store: MemoryStore, sources: Sources, *recipients: Identity) -> Keyring:
    wanted = [str(identity.recipient) for identity in recipients or (OWN,)]
    return Keyring(store, wanted, sources, what="repository memory:test")


def given(*paths: Path) -> Sources:
    return Sources(tuple(map(identity_file, paths)))


def test_a_file_of_the_repositorys_own_identity_needs_no_key(tmp_path: Path) -> None:
    own = file_of(tmp_path / "own", f"# recipient: {OWN.recipient}\n\n{OWN}")
    assert keyring(MemoryStore("test"), given(own))() == [OWN]


def test_the_identity_of_a_person_opens_the_key_that_is_for_it(tmp_path: Path) -> None:
    store = MemoryStore("test")
    key_file(store, "bob", OWN, to=STRANGER.recipient)
    key_file(store, "alice", OWN, to=PERSON.recipient)
    assert keyring(store, given(file_of(tmp_path / "alice.txt", PERSON)))() == [OWN]


def test_all_identities_of_a_rotated_repository_are_found_the_current_one_first(tmp_path: Path) -> None:
    store, former = MemoryStore("test"), Identity.new()
    key_file(store, "alice", former, OWN, to=PERSON.recipient)
    assert keyring(store, given(file_of(tmp_path / "alice.txt", PERSON)), OWN, former)() == [OWN, former]


def test_an_old_sheet_of_paper_still_gives_what_was_encrypted_for_it(tmp_path: Path) -> None:
    former = Identity.new()
    assert keyring(MemoryStore("test"), given(file_of(tmp_path / "paper", former)), OWN, former)() == [former]


def test_a_passphrase_opens_the_key_that_has_it(tmp_path: Path) -> None:
    store = MemoryStore("test")
    key_file(store, "alice", OWN, to=PERSON.recipient)
    key_file(store, "bob", OWN, to="another one")
    key_file(store, "carol", OWN, to="correct horse")
    known = Sources(passphrases=(passphrase_file(file_of(tmp_path / "p", "correct horse")),))
    assert keyring(store, known)() == [OWN]


def test_a_person_is_asked_last_and_once(tmp_path: Path) -> None:
    store, questions = MemoryStore("test"), list[str]()
    key_file(store, "alice", OWN, to="correct horse")

    def answer(question: str) -> str:
        questions.append(question)
        return "correct horse" if len(questions) > 1 else "corect horse"

    identities = keyring(store, Sources(ask=answer))
    assert identities() == [OWN]
    assert identities() == [OWN]
    assert questions == ["Passphrase of repository memory:test: "] * 2
    own = file_of(tmp_path / "own", OWN)
    assert keyring(store, given(own).before(Sources(ask=answer)))() == [OWN]
    assert len(questions) == 2


def test_nobody_is_asked_where_no_key_has_a_passphrase() -> None:
    store = MemoryStore("test")
    key_file(store, "alice", OWN, to=PERSON.recipient)
    with pytest.raises(IdentityNeeded):
        keyring(store, Sources(ask=lambda _: pytest.fail("a question that nothing can answer")))()


def test_an_identity_file_that_is_encrypted_itself_is_opened_with_a_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "identity.age"
    path.write_bytes(b"".join(encrypt([f"{OWN}\n".encode()], passphrase="correct horse", work_factor=QUICK)))
    path.chmod(0o600)
    right = Sources(passphrases=(passphrase_file(file_of(tmp_path / "p", "correct horse")),))
    assert keyring(MemoryStore("test"), given(path).before(right))() == [OWN]
    with pytest.raises(IdentityNeeded, match="encrypted itself, and no passphrase"):
        keyring(MemoryStore("test"), given(path))()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is encrypted: an identity is needed"),
        (str(STRANGER), "no given identity is its own, or opens one of its keys"),
    ],
    ids=["none", "another"],
)
def test_without_a_fitting_identity_it_is_said_what_was_tried(tmp_path: Path, text: str | None, said: str) -> None:
    store = MemoryStore("test")
    key_file(store, "alice", OWN, to=PERSON.recipient)
    sources = Sources() if text is None else given(file_of(tmp_path / "identity", text))
    with pytest.raises(IdentityNeeded) as caught:
        keyring(store, sources)()
    assert said in caught.value.message
    assert caught.value.exit_code == 2
    assert text is None or text not in caught.value.message


def test_a_wrong_passphrase_is_one_error_that_does_not_repeat_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore("test")
    key_file(store, "alice", OWN, to="correct horse")
    caplog.set_level(logging.DEBUG)
    wrong = Sources(passphrases=(passphrase_file(file_of(tmp_path / "p", "battery staple")),))
    with pytest.raises(IdentityNeeded, match="the passphrase is wrong") as caught:
        keyring(store, wrong)()
    assert "battery" not in caught.value.message + str(caught.value.hint) + caplog.text + repr(wrong)


def test_a_key_file_of_a_stranger_gives_no_identity_of_this_repository(tmp_path: Path) -> None:
    """Who can write to the repository can put a key there that the person's identity opens."""
    store = MemoryStore("test")
    key_file(store, "alice", STRANGER, to=PERSON.recipient)
    with pytest.raises(IdentityNeeded):
        keyring(store, given(file_of(tmp_path / "alice.txt", PERSON)))()


@pytest.mark.parametrize(
    "damage",
    [b"", b"rubbish", b"age-encryption.org/v1\n-> X25519", bytes(70_000)],
    ids=["empty", "rubbish", "cut", "large"],
)
def test_a_damaged_key_file_is_named_and_does_not_hide_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    store = MemoryStore("test")
    store.put("keys/aaa.age", [damage])
    key_file(store, "bob", OWN, to=PERSON.recipient)
    assert keyring(store, given(file_of(tmp_path / "bob.txt", PERSON)))() == [OWN]
    assert "keys/aaa.age" in caplog.text


def test_a_key_file_does_not_choose_how_much_memory_its_passphrase_takes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A person's own file may have been made with more than volback uses; whoever writes to a bucket may not choose."""
    store = MemoryStore("test")
    text = b"".join(encrypt([str(OWN).encode()], passphrase="correct horse", work_factor=QUICK))
    first = text.split(b"\n", 2)[1]
    assert first.endswith(b" 4")
    store.put("keys/carol.age", [text.replace(first, first[:-1] + b"19", 1)])
    known = Sources(passphrases=(passphrase_file(file_of(tmp_path / "p", "correct horse")),))
    with pytest.raises(IdentityNeeded):
        keyring(store, known)()
    assert "keys/carol.age" in caplog.text
    assert "work factor is 19, and more than 18 is not accepted" in caplog.text


def test_a_file_that_others_can_read_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = file_of(tmp_path / "own", OWN)
    own.chmod(0o640)
    assert keyring(MemoryStore("test"), given(own))() == [OWN]
    assert f"other users of this machine can read it: chmod 600 {own}" in caplog.text
    assert str(OWN) not in caplog.text


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\xff\xfe", "not a text"), (b"", "holds no identity"), (bytes(70_000), "larger than 65536"),
     (b"AGE-PLUGIN-YUBIKEY-1QQ\n", "plugin"), (b"ssh-ed25519 AAAA\n", "is not an identity of age")],
    ids=["bytes", "empty", "large", "plugin", "ssh"],
)  # fmt: skip
def test_a_file_without_an_identity_is_an_error_that_names_it(tmp_path: Path, content: bytes, said: str) -> None:
    path = file_of(tmp_path / "identity", "")
    path.write_bytes(content)
    with pytest.raises(UsageError, match=said) as caught:
        keyring(MemoryStore("test"), given(path))()
    assert str(path) in caught.value.message


@pytest.mark.parametrize("text", ["\ufeff{own}\n", "# mine\r\n{own}\r\n", "\ufeff# mine\r\n\r\n{own}"])
def test_a_file_that_an_editor_of_another_system_has_saved_is_read(tmp_path: Path, text: str) -> None:
    path = file_of(tmp_path / "identity", "")
    path.write_bytes(text.format(own=OWN).encode())
    assert keyring(MemoryStore("test"), given(path))() == [OWN]


def test_an_identity_comes_through_a_pipe_that_is_written(tmp_path: Path) -> None:
    """As `--identity <(command)` of a shell."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(f"{OWN}\n",))
    writer.start()
    assert keyring(MemoryStore("test"), given(pipe))() == [OWN]
    writer.join()


def test_a_pipe_that_nobody_writes_and_a_directory_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_WAIT_S", 0.01)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, said in ((pipe, "nothing came within"), (tmp_path, "Is a directory"), (Path("/dev/zero"), "is larger")):
        with pytest.raises(UsageError, match=said):
            keyring(MemoryStore("test"), given(path))()


@pytest.mark.parametrize(
    ("command", "said"),
    [("yes", "yes prints more than 1048576 bytes"), ("sleep 60", "sleep did not end within"),
     ("no-such-program", "cannot run no-such-program"), ("sh -c 'echo hush >&2; exit 3'", "sh ended with status 3")],
)  # fmt: skip
def test_a_command_that_gives_no_passphrase_is_ended_and_its_output_not_shown(
    monkeypatch: pytest.MonkeyPatch, command: str, said: str
) -> None:
    if command.startswith("sleep"):
        monkeypatch.setattr(secrets, "_WAIT_S", 0.01)
    store = MemoryStore("test")
    key_file(store, "alice", OWN, to="correct horse")
    with pytest.raises(UsageError, match=said) as caught:
        keyring(store, sources_of({"VOLBACK_PASSPHRASE_COMMAND": command}))()
    assert "hush" not in caught.value.message


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"VOLBACK_IDENTITY_FILE": "/does/not/exist"}, "/does/not/exist cannot be read: No such file or directory"),
        ({"VOLBACK_PASSPHRASE_COMMAND": "false"}, "VOLBACK_PASSPHRASE_COMMAND: false ended with status 1"),
        ({"VOLBACK_PASSPHRASE_COMMAND": "'"}, "VOLBACK_PASSPHRASE_COMMAND is not a command"),
        ({"VOLBACK_PASSPHRASE_COMMAND": "true"}, "VOLBACK_PASSPHRASE_COMMAND: the value is empty"),
    ],
)
def test_what_the_environment_names_wrongly_is_said(environment: dict[str, str], said: str) -> None:
    store = MemoryStore("test")
    key_file(store, "alice", OWN, to="correct horse")
    with pytest.raises(UsageError, match=said):
        keyring(store, sources_of(environment))()
