"""`volback key ...` and what goes with it: pins, rotation, certificates, the disaster sheet. No engine is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.forged import reseal_file
from tests.support.repository import use_here
from volback.archive.age_keys import Identity
from volback.archive.signing import SigningKey, authority_of
from volback.catalog.keys import REPOSITORY_KEY
from volback.cli.main import run
from volback.context import Context, open_repository
from volback.encryption.sources import SecretText, Sources
from volback.errors import ConflictError, IdentityNeeded
from volback.operations.rotate import rotate
from volback.operations.trust import trusted_keys
from volback.settings import Settings
from volback.state.host_key import host_secret

ALICE, BOB = Identity.new(), Identity.new()
QUICK = 4


class Commands:
    """Runs commands in a directory with an encrypted repository; keeps what they print."""

    def __init__(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.place, self.repository, self.state = place, place / "repository", place / "state"
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        assert run(list(arguments)) == code, self._capsys.readouterr().err
        self.out, self.err = self._capsys.readouterr()
        return self.out

    def json(self, *arguments: str, code: int = 0) -> dict[str, object]:
        found = json.loads(self("--json", *arguments, code=code))["result"]
        assert isinstance(found, dict)
        return found

    def file(self, name: str, text: object) -> str:
        path = self.place / name
        path.write_text(f"{text}\n")
        path.chmod(0o600)
        return str(path)

    def forge(self, **fields: object) -> None:
        """Change the repository's document, as who can only write to it."""

        def changed(document: dict[str, object]) -> None:
            document.pop("signed_by")
            document.pop("signature")
            document.update(fields)

        reseal_file(self.repository / REPOSITORY_KEY, changed)

    @property
    def recipient(self) -> str:
        return str(json.loads((self.repository / REPOSITORY_KEY).read_bytes())["encryption"]["recipient"])


@pytest.fixture
def volback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    use_here(monkeypatch, tmp_path, "repository")
    commands = Commands(tmp_path, capsys)
    commands("init", "--encrypt", "--key", "alice", "--recipient", str(ALICE.recipient))
    commands.file("alice.txt", ALICE)
    commands.file("bob.txt", BOB)
    return commands


def test_keys_are_listed_without_a_key(volback: Commands) -> None:
    volback("key", "add", "bob", "--recipient", str(BOB.recipient), "--identity", "alice.txt")
    assert volback.out == f"added key bob, for {BOB.recipient}\n"
    lines = volback("key", "list").splitlines()
    assert [line.split()[:2] for line in lines] == [["KEY", "OPENS"], ["alice", "all"], ["bob", "all"]]
    found = volback.json("key", "list")
    assert found["recipient"] == volback.recipient
    assert isinstance(found["keys"], list)
    assert [key["recipients"] for key in found["keys"]] == [[str(ALICE.recipient)], [str(BOB.recipient)]]


def test_a_key_is_added_for_the_recipients_of_a_file(volback: Commands) -> None:
    team = volback.file("team.txt", f"# the team\n{ALICE.recipient}\n\n{BOB.recipient}")
    volback("key", "add", "team", "--recipients-file", team, "--identity", "alice.txt")
    volback("key", "export", "sheet.txt", "--identity", "bob.txt")
    volback("key", "add", "x", "--recipients-file", "absent", "--identity", "alice.txt", code=2)
    assert "absent cannot be read: No such file or directory" in volback.err


def test_a_passphrase_is_given_in_a_file_and_changed(volback: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = volback.file("first", "correct horse"), volback.file("second", "battery staple")
    volback("key", "add", "p", "--new-passphrase-file", first, "--identity", "alice.txt")
    volback("key", "passwd", "p", "--new-passphrase-file", second, "--identity", "alice.txt")
    assert volback.out == "changed the passphrase of key p\n"
    monkeypatch.setenv("VOLBACK_PASSPHRASE_FILE", second)
    volback("key", "export", "sheet.txt")


def test_where_nobody_can_be_asked_the_option_is_named(volback: Commands) -> None:
    volback("key", "add", "bob", "--identity", "alice.txt", code=2)
    assert "nobody can be asked for the passphrase of key bob" in volback.err
    assert "hint: name a file: --new-passphrase-file" in volback.err
    volback("key", "add", "bob", code=2)
    assert "an identity is needed" in volback.err, "before it is asked for a passphrase in vain"
    both = ["--recipient", str(BOB.recipient), "--new-passphrase-file", volback.file("p", "x")]
    volback("key", "add", "bob", *both, "--identity", "alice.txt", code=2)
    assert "for recipients or for a passphrase, and not for both" in volback.err


def test_the_last_key_stays_and_what_a_removal_cannot_take_back_is_said(volback: Commands) -> None:
    volback("key", "remove", "alice", code=5)
    assert "'alice' is the last one that opens the repository" in volback.err
    volback("key", "add", "bob", "--recipient", str(BOB.recipient), "--identity", "alice.txt")
    volback("key", "remove", "alice")
    assert "removed key alice" in volback.out
    assert "may have kept the identity" in volback.err
    assert "volback key rotate" in volback.err
    volback("key", "export", "sheet.txt", "--identity", "alice.txt", code=2)
    volback("key", "remove", "alice", code=4)


def test_a_repository_in_clear_has_no_keys(volback: Commands) -> None:
    clear = str(volback.place / "clear")
    volback("init", "--repo", clear)
    for arguments in (["list"], ["remove", "a"], ["export"], ["rotate"], ["add", "a", "--recipient", "age1x"]):
        volback("key", *arguments, "--repo", clear, code=2)
        assert "is not encrypted, so it has no keys" in volback.err


def test_the_sheet_holds_all_that_a_restore_needs(volback: Commands) -> None:
    volback("key", "export", "sheet.txt", "--identity", "alice.txt")
    sheet = volback.place / "sheet.txt"
    assert sheet.stat().st_mode & 0o777 == 0o600
    text = sheet.read_text()
    assert str(volback.repository) in text
    assert volback.recipient in text
    paper = "\n".join(line for line in text.splitlines() if line.startswith("AGE-SECRET-KEY-1"))
    volback("key", "export", "again.txt", "--identity", volback.file("paper.txt", paper))
    volback("key", "export", "sheet.txt", "--identity", "alice.txt", code=5)
    assert sheet.read_text() == text
    secret = paper.strip()
    assert secret not in volback.out + volback.err
    assert "SECRET" not in json.dumps(volback.json("key", "export", "third.txt", "--identity", "alice.txt"))


def test_another_recipient_in_the_repository_is_refused_and_accepted_on_purpose(volback: Commands) -> None:
    """Who can write to the bucket would read all that this host writes from then on."""
    volback("list")
    mine, theirs = volback.recipient, str(BOB.recipient)
    volback.forge(encryption={"recipient": theirs, "past": []})
    for command in (["list"], ["prune", "--keep-last", "1"], ["key", "list"]):
        volback(*command, code=7)
        assert f"is encrypted for {theirs} now, and it was for {mine}" in volback.err
        assert f"volback key pin {theirs}" in volback.err
    volback("key", "pin", mine, code=2)
    assert f"is encrypted for {theirs}, not for {mine}" in volback.err
    volback("key", "pin", theirs)
    volback("list")


def test_an_encrypted_repository_that_is_in_clear_now_is_refused(volback: Commands) -> None:
    """A host must not write in clear because somebody replaced a document."""
    volback("list")
    was = (volback.repository / REPOSITORY_KEY).read_bytes()
    volback.forge(encryption=None, requires=[])
    volback("list", code=7)
    assert "is not encrypted now, and it was encrypted for" in volback.err
    (volback.repository / REPOSITORY_KEY).write_bytes(was)
    volback("list")


def test_a_repository_in_clear_that_is_encrypted_now_is_refused(volback: Commands) -> None:
    clear = volback.place / "clear"
    volback("init", "--repo", str(clear))
    stranger = {"recipient": str(BOB.recipient), "past": []}
    reseal_file(clear / REPOSITORY_KEY, lambda fields: fields.update(encryption=stranger, requires=["age"]))
    volback("list", "--repo", str(clear), code=7)
    assert "and it was not encrypted" in volback.err


def test_the_configuration_pins_a_recipient_and_names_files(volback: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    config = volback.place / "volback.toml"
    monkeypatch.setenv("VOLBACK_CONFIG", str(config))
    url, alice = json.dumps(str(volback.repository)), json.dumps(str(volback.place / "alice.txt"))
    config.write_text(f'[repositories.main]\nurl = {url}\nidentity_file = {alice}\nrecipient = "{volback.recipient}"\n')
    volback("--repo", "main", "key", "export", "sheet.txt")
    config.write_text(f'[repositories.main]\nurl = {url}\nrecipient = "{BOB.recipient}"\n')
    volback("--repo", "main", "list", code=7)
    assert "change `recipient` in volback.toml" in volback.err
    volback("--repo", "main", "key", "pin", volback.recipient, code=2)
    assert f"the configuration pins {BOB.recipient}" in volback.err
    for line, said in {
        'recipient = "age1short"': "expected a recipient of age",
        'identity = "AGE-SECRET-KEY-1"': "is unknown",
        'passphrase = "correct horse"': "is unknown",
    }.items():
        config.write_text(f"[repositories.main]\nurl = {url}\n{line}\n")
        volback("config", "check", code=2)
        assert said in volback.out
        assert "horse" not in volback.out


def test_a_rotation_gives_a_new_identity_to_each_key_whose_holder_is_known(volback: Commands) -> None:
    volback("key", "add", "bob", "--recipient", str(BOB.recipient), "--identity", "alice.txt")
    volback(
        "key", "add", "paper", "--new-passphrase-file", volback.file("p", "correct horse"), "--identity", "alice.txt"
    )
    former = volback.recipient
    volback("key", "rotate", "--identity", "alice.txt", code=3)
    assert volback.recipient != former
    assert f"volback key pin {volback.recipient}" in volback.out
    assert "key paper opens only the backups before this" in volback.err
    volback("list")  # this machine has pinned the new one
    rows = {line.split()[0]: line.split()[1] for line in volback("key", "list").splitlines()[1:]}
    assert rows == {"alice": "all", "bob": "all", "paper": "earlier"}
    sheet = volback("key", "export", "--identity", "bob.txt")
    assert sheet.count("AGE-SECRET-KEY-1") == 3, "two identities, and the word of step 1"
    assert former in sheet
    volback("key", "rotate", "--identity", "bob.txt", code=3)  # notes are signed for the next rotation
    rows = {line.split()[0]: line.split()[1] for line in volback("key", "list").splitlines()[1:]}
    assert rows == {"alice": "all", "bob": "all", "paper": "earlier"}


def test_a_note_that_somebody_else_has_written_does_not_say_for_whom_a_key_is(volback: Commands) -> None:
    """Who can write to the bucket would hide that no key opens it any more, or who can."""
    note = volback.repository / "keys/alice.json"

    def forged(document: dict[str, object]) -> None:
        document.update(recipients=[str(BOB.recipient)])

    reseal_file(note, forged)
    rows = volback("key", "list").splitlines()
    assert rows[1].split() == ["alice", "unknown", "unknown"]
    assert "keys/alice.json was not written by who holds the identity" in volback.err
    volback("key", "list", "--identity", "alice.txt")
    assert str(BOB.recipient) not in volback.out
    volback("key", "add", "bob", "--recipient", str(BOB.recipient), "--identity", "alice.txt")
    volback("key", "remove", "bob", code=5)
    assert "is the last one that opens the repository" in volback.err


def context_of(volback: Commands, *identities: Identity, passphrase: str | None = None) -> Context:
    sources = Sources(
        tuple(SecretText("a test", str(identity).encode) for identity in identities),
        () if passphrase is None else (SecretText("a test", passphrase.encode),),
    )
    return Context(Settings(repository=str(volback.repository), state=volback.state, host="web1"), sources=sources)


def test_a_rotation_keeps_what_is_certified_and_known_passphrases(volback: Commands) -> None:
    volback(
        "key", "add", "paper", "--new-passphrase-file", volback.file("p", "correct horse"), "--identity", "alice.txt"
    )
    context = context_of(volback, ALICE, passphrase="correct horse")
    repository = open_repository(context)
    key = SigningKey(host_secret(volback.state)).public.hex()
    from volback.operations.trust import certify

    certify(repository.stored, repository.info.id, repository.identities()[0], "web1", key, now=context.now())
    done = rotate(context, repository, work_factor=QUICK)
    assert (done.rewritten, done.left) == (["alice", "paper"], [])
    again = open_repository(context_of(volback, ALICE))
    assert trusted_keys(again.stored, again.info.id, authority_of(again.identities()[0]).public).keys == {"web1": {key}}
    assert [str(identity.recipient) for identity in again.identities()] == [done.recipient, *done.past]


def test_who_has_only_an_earlier_identity_rotates_nothing_and_two_rotations_do_not_mix(volback: Commands) -> None:
    mine, theirs = open_repository(context_of(volback, ALICE)), open_repository(context_of(volback, ALICE))
    former = mine.identities()[0]
    _ = theirs.info
    rotate(context_of(volback, ALICE), mine, work_factor=QUICK)
    before = (volback.repository / REPOSITORY_KEY).read_bytes()
    with pytest.raises(ConflictError, match="was rotated by somebody else meanwhile"):
        rotate(context_of(volback, ALICE), theirs, work_factor=QUICK)
    context = context_of(volback, former)
    with pytest.raises(IdentityNeeded, match="only an earlier identity"):
        rotate(context, open_repository(context), work_factor=QUICK)
    assert (volback.repository / REPOSITORY_KEY).read_bytes() == before


def test_a_host_shows_its_key(volback: Commands) -> None:
    key = SigningKey(host_secret(volback.state)).public.hex()
    assert volback.json("key", "host")["key"] == key
    assert volback("key", "host").replace(" ", "").strip() == key


def test_a_host_is_trusted_by_who_has_an_identity(volback: Commands) -> None:
    volback("key", "trust", "web1", "--identity", "alice.txt", code=4)
    assert "no backup of host web1 is signed" in volback.err
    volback("key", "trust", "web1", code=2)
    assert "an identity is needed" in volback.err
    assert not (volback.repository / "keys/hosts").exists()


def test_no_secret_is_in_a_log_or_an_error_however_much_is_logged(volback: Commands) -> None:
    wrong = volback.file("wrong", "battery staple")
    said = ""
    for arguments in (["key", "list"], ["key", "add", "bob", "--recipient", str(BOB.recipient)]):
        volback("--debug", *arguments, "--identity", "alice.txt")
        said += volback.out + volback.err
    volback("--debug", "key", "passwd", "bob", "--new-passphrase-file", wrong, "--identity", "alice.txt", code=2)
    said += volback.out + volback.err
    identity = open_repository(context_of(volback, ALICE)).identities()[0]
    for secret in (str(ALICE), str(identity), "battery staple", identity.secret.hex()):
        assert secret not in said


def test_doctor_says_how_many_keys_open_the_repository(volback: Commands) -> None:
    def checked(code: int) -> str:
        volback("doctor", code=code)
        (line,) = [line for line in volback.out.splitlines() if "format 1" in line]
        return line

    assert "encrypted, 1 key: without one, all is lost" in checked(8)
    (volback.repository / "keys/alice.json").unlink()
    assert "encrypted, and no key is known to open it" in checked(8)
