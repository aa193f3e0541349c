"""Signatures: of hosts under their manifests, and of who holds an identity under certificates."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.support.documents import ID, MANIFEST
from tests.support.forged import sealed
from tests.support.repository import make_backup
from volback.archive.age_keys import Identity
from volback.archive.primitives import is_signed
from volback.archive.signing import SigningKey, authority_of
from volback.catalog.certificates import Certificate, certificate_key, read_certificates, write_certificate
from volback.catalog.keys import BackupKey
from volback.catalog.listing import DamagedManifest
from volback.catalog.model import Manifest
from volback.catalog.repository import Catalog
from volback.catalog.sealed import open_document, seal_document, signature_of
from volback.errors import ConflictError, FormatError, NotFoundError, StoreError, UsageError
from volback.operations.trust import certify, choose_key, fingerprint, signing_keys, trusted_keys
from volback.state.host_key import host_secret
from volback.state.pinned import CLEAR, Pin, pinned, remember_pin, write_pin
from volback.store.memory import MemoryStore

NOW = datetime(2026, 11, 26, 10, 0, tzinfo=UTC)
HOST_KEY, OTHER_KEY, IDENTITY = SigningKey.new(), SigningKey.new(), Identity.new()
REPOSITORY = "0123"


def signed_backup(store: MemoryStore, key: SigningKey = HOST_KEY, id: str = ID) -> BackupKey:
    """A backup whose manifest is signed."""
    made = make_backup(store, id)
    manifest = Catalog(store).read(made)
    store.delete(made.manifest)
    Catalog(store, signer=lambda: key).commit(manifest)
    return made


def catalog(store: MemoryStore) -> Catalog:
    return Catalog(store, is_signed=is_signed)


def change(store: MemoryStore, key: str, **changes: object) -> None:
    """Change fields of a document, and give it a good digest again."""
    fields = json.loads(b"".join(store.open(key)))
    del fields["sha256"]
    store.put(key, [sealed({**fields, **changes})])


def test_a_signature_covers_all_bytes_before_it_and_stands_before_the_digest() -> None:
    data = seal_document(MANIFEST, HOST_KEY)
    covered, _, rest = data.partition(b',\n  "signature": "')
    fields = json.loads(data)
    assert list(fields)[-3:] == ["signed_by", "signature", "sha256"]
    assert fields["signed_by"] == HOST_KEY.public.hex()
    found = signature_of(data)
    assert found is not None
    assert (found.public, found.covered) == (HOST_KEY.public, covered)
    Ed25519PublicKey.from_public_bytes(HOST_KEY.public).verify(found.signature, covered)
    assert rest.startswith(fields["signature"].encode())
    assert open_document(data, Manifest, "it").signed_by == HOST_KEY.public.hex()


def test_a_document_without_a_signature_has_none() -> None:
    data = seal_document(MANIFEST)
    assert signature_of(data) is None
    assert b"sign" not in data
    fields = json.loads(data)
    del fields["sha256"]
    for odd in ({"signed_by": "aa"}, {"signature": "A" * 86 + "=="}, {"signed_by": "A" * 64, "signature": "AA=="}):
        assert signature_of(sealed({**fields, **odd})) is None


def test_the_catalog_says_who_signed_a_backup() -> None:
    store = MemoryStore("test")
    key = signed_backup(store)
    assert catalog(store).read(key).signer == HOST_KEY.public.hex()
    assert [found.signer for found in catalog(store).manifests() if isinstance(found, Manifest)] == [
        HOST_KEY.public.hex()
    ]
    assert Catalog(store).read(key).signer is None, "nobody has proven it"
    assert catalog(store).read(make_backup(store, volume="other")).signer is None


@pytest.mark.parametrize(
    "changes",
    [{"files": 8}, {"signed_by": OTHER_KEY.public.hex()}, {"tags": ["kept"]}],
    ids=["files", "signer", "tags"],
)
def test_a_manifest_that_was_changed_after_it_was_signed_is_damaged(changes: dict[str, object]) -> None:
    store = MemoryStore("test")
    key = signed_backup(store)
    change(store, key.manifest, **changes)
    with pytest.raises(FormatError, match="is not what its signer has signed"):
        catalog(store).read(key)
    assert [type(found) for found in catalog(store).manifests()] == [DamagedManifest]


def test_a_signature_that_was_taken_away_leaves_a_backup_that_nobody_signed() -> None:
    store = MemoryStore("test")
    key = signed_backup(store)
    fields = json.loads(b"".join(store.open(key.manifest)))
    store.put(key.manifest, [sealed({name: fields[name] for name in list(fields)[:-3]})])
    assert catalog(store).read(key).signer is None


def test_a_manifest_that_is_committed_again_is_signed_by_who_does_that() -> None:
    store = MemoryStore("test")
    key = signed_backup(store, OTHER_KEY)
    found = catalog(store).read(key)
    store.delete(key.manifest)
    Catalog(store, signer=lambda: HOST_KEY).commit(found)
    assert catalog(store).read(key).signer == HOST_KEY.public.hex()
    store.delete(key.manifest)
    Catalog(store).commit(found)
    assert b"signed_by" not in b"".join(store.open(key.manifest))


def test_what_a_certified_host_signed_is_trusted_and_nothing_else() -> None:
    store = MemoryStore("test")
    mine, theirs = signed_backup(store), signed_backup(store, OTHER_KEY, "20261126T000000Z-bbbb")
    unsigned = make_backup(store, volume="other")
    assert not trusted_keys(store, REPOSITORY, authority_of(IDENTITY).public).is_certified(catalog(store).read(mine))
    certify(store, REPOSITORY, IDENTITY, "web1", HOST_KEY.public.hex(), now=NOW)
    trusted = trusted_keys(store, REPOSITORY, authority_of(IDENTITY).public)
    manifests = [catalog(store).read(key) for key in (mine, theirs, unsigned)]
    assert [trusted.is_certified(manifest) for manifest in manifests] == [True, False, False]
    said = [trusted.warning(manifest) for manifest in manifests]
    assert said[0] is None
    assert f"signed by a key that is not certified for host web1 ({OTHER_KEY.public.hex()[:16]})" in str(said[1])
    assert "is not signed: whoever can write to the repository can have made it" in str(said[2])
    assert not trusted.is_certified(msgspec.structs.replace(manifests[0], host="web2")), "a key is of one host"


def test_a_certificate_counts_only_from_who_holds_the_identity_and_for_this_repository() -> None:
    store = MemoryStore("test")
    key = HOST_KEY.public.hex()
    certify(store, REPOSITORY, Identity.new(), "web1", key, now=NOW)
    assert trusted_keys(store, REPOSITORY, authority_of(IDENTITY).public).keys == {}
    certify(store, "another", IDENTITY, "web1", key, now=NOW)
    assert trusted_keys(store, REPOSITORY, authority_of(IDENTITY).public).keys == {}
    made = certify(store, REPOSITORY, IDENTITY, "web1", key, now=NOW)
    assert trusted_keys(store, REPOSITORY, authority_of(IDENTITY).public).keys == {"web1": {key}}
    change(store, certificate_key(made), host="web2")
    assert trusted_keys(store, REPOSITORY, authority_of(IDENTITY).public).keys == {}


def test_a_damaged_certificate_is_named_and_does_not_hide_the_others(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore("test")
    certify(store, REPOSITORY, IDENTITY, "web1", HOST_KEY.public.hex(), now=NOW)
    store.put("keys/hosts/aaa.json", [b"rubbish"])
    odd = Certificate(repository=REPOSITORY, host="a/b c" * 60, key="../x", certified_at="")
    write_certificate(store, odd, authority_of(IDENTITY))
    assert len(read_certificates(store)) == 1
    assert "keys/hosts/aaa.json is cut short" in caplog.text
    assert "is not a certificate" in caplog.text


def test_the_key_of_a_host_is_certified_once_a_person_has_compared_it() -> None:
    store = MemoryStore("test")
    with pytest.raises(NotFoundError, match="no backup of host web1 is signed"):
        choose_key(catalog(store), "web1", None, lambda _: True)
    signed_backup(store)
    key, asked = HOST_KEY.public.hex(), list[str]()

    def confirm(found: str) -> bool:
        asked.append(found)
        return True

    assert choose_key(catalog(store), "web1", None, confirm) == key
    assert asked == [key]
    with pytest.raises(UsageError, match=f"key {key[:16]} of host web1 was not confirmed"):
        choose_key(catalog(store), "web1", None, lambda _: False)
    for given in (key, key[:16], fingerprint(key).upper()):
        assert choose_key(catalog(store), "web1", given, lambda _: False) == key
    with pytest.raises(NotFoundError, match="by a key '0000'"):
        choose_key(catalog(store), "web1", "0000", lambda _: True)
    signed_backup(store, OTHER_KEY, "20261126T000000Z-bbbb")
    assert signing_keys(catalog(store), "web1") == {key: 1, OTHER_KEY.public.hex(): 1}
    with pytest.raises(ConflictError, match="are signed by 2 keys"):
        choose_key(catalog(store), "web1", None, lambda _: True)


def test_the_authority_is_derived_from_the_identity_and_from_nothing_else() -> None:
    known = Identity(bytes(range(32)))
    assert authority_of(known).public.hex() == "fdc338b4ae27cd4aa013b2d7a48769575d190d4e1c903d00f49a9d2185eda21c"
    assert authority_of(known).secret != known.secret
    assert authority_of(IDENTITY) == authority_of(IDENTITY) != authority_of(known)
    assert HOST_KEY.secret.hex() not in repr(HOST_KEY)


def test_the_key_of_a_host_is_made_once_and_private(tmp_path: Path) -> None:
    secret = host_secret(tmp_path / "state")
    assert host_secret(tmp_path / "state") == secret
    assert len(secret) == 32
    assert (tmp_path / "state" / "host-key").stat().st_mode & 0o777 == 0o600


def test_a_key_of_a_host_that_others_can_read_is_a_warning_and_a_damaged_one_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = host_secret(tmp_path)
    path = tmp_path / "host-key"
    path.chmod(0o644)
    assert host_secret(tmp_path) == secret
    assert f"chmod 600 {path}" in caplog.text
    assert secret.hex() not in caplog.text
    path.write_text("rubbish")
    with pytest.raises(StoreError, match="is not a key of this host"):
        host_secret(tmp_path)


def test_a_recipient_is_pinned_by_repository(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    known = Pin(str(IDENTITY.recipient), authority_of(IDENTITY).public.hex())
    assert pinned(tmp_path, "one") is None
    remember_pin(tmp_path, "one", known)
    remember_pin(tmp_path, "two", Pin(CLEAR))
    assert pinned(tmp_path, "one") == known
    assert pinned(tmp_path, "two") == Pin(CLEAR)
    write_pin(tmp_path, "one", Pin(CLEAR))
    assert pinned(tmp_path, "one") == Pin(CLEAR)


def test_a_pin_of_before_there_were_authorities_has_none(tmp_path: Path) -> None:
    remember_pin(tmp_path, "one", Pin(str(IDENTITY.recipient)))
    (path,) = (tmp_path / "recipients").iterdir()
    assert path.read_text() == f"{IDENTITY.recipient}\n"
    path.write_text(f"{IDENTITY.recipient}\nrubbish\n")
    assert pinned(tmp_path, "one") == Pin(str(IDENTITY.recipient))


def test_without_a_state_directory_nothing_is_remembered_and_only_pinning_on_purpose_fails(tmp_path: Path) -> None:
    state = tmp_path / "file"
    state.write_text("")
    remember_pin(state, "one", Pin(CLEAR))
    assert pinned(state, "one") is None
    with pytest.raises(StoreError, match="state directory cannot be used"):
        write_pin(state, "one", Pin(CLEAR))
