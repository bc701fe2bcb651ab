"""Signed notes, checkpoints and proofs against the published examples, and against every trick of spelling.

The first vector is the example of golang.org/x/mod/sumdb/note (BSD licence), which c2sp.org/signed-note specifies.
"""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from storage import notes
from storage.errors import Unverifiable
from storage.notes import Checkpoint, Proof

PETER_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
NAME = "acme/gateway-0/1"
CHECKPOINT = Checkpoint(origin=NAME, size=7, root=b"\x07" * 32)


def note(text: str = CHECKPOINT.text()) -> bytes:
    return notes.sign(text, name=NAME, key=KEY)


def test_the_published_note_verifies_under_its_published_key() -> None:
    name, public = notes.parse_verifier_key(PETER_KEY)
    assert notes.verifier_key(name, public) == PETER_KEY
    assert notes.verified(PETER_NOTE, {name: public}).endswith("your problem is.\n")


def test_a_changed_byte_anywhere_in_the_published_note_is_refused() -> None:
    name, public = notes.parse_verifier_key(PETER_KEY)
    for at in range(len(PETER_NOTE)):
        changed = PETER_NOTE[:at] + bytes([PETER_NOTE[at] ^ 1]) + PETER_NOTE[at + 1 :]
        with pytest.raises(Unverifiable):
            notes.verified(changed, {name: public})


def test_a_signed_checkpoint_comes_back_as_it_was() -> None:
    assert notes.verified_checkpoint(note(), origin=NAME, public=PUBLIC) == CHECKPOINT
    assert CHECKPOINT.text() == f"{NAME}\n7\n{base64.b64encode(bytes([7]) * 32).decode()}\n"


def test_signatures_by_unknown_keys_are_ignored_and_one_known_must_verify() -> None:
    other = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
    witness = notes.sign(CHECKPOINT.text(), name="witness.example", key=other).split(b"\n\n", 1)[1]
    assert notes.verified(note() + witness, {NAME: PUBLIC}) == CHECKPOINT.text()
    with pytest.raises(Unverifiable, match="no signature by"):
        notes.verified(notes.sign(CHECKPOINT.text(), name=NAME, key=other), {NAME: PUBLIC})


def test_a_bad_signature_under_a_known_key_spoils_the_note() -> None:
    lines = note("another text\n").split(b"\n\n", 1)[1]
    with pytest.raises(Unverifiable, match="does not verify"):
        notes.verified(note() + lines, {NAME: PUBLIC})


def test_a_checkpoint_of_another_ledger_is_refused() -> None:
    strange = notes.sign("acme/gateway-1/1\n7\n" + CHECKPOINT.text().split("\n")[2] + "\n", name=NAME, key=KEY)
    with pytest.raises(Unverifiable, match="where one of"):
        notes.verified_checkpoint(strange, origin=NAME, public=PUBLIC)


SIGNED = note().decode()
LINE = SIGNED.split("\n\n")[1]


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "\n",
        CHECKPOINT.text(),
        SIGNED[:-1],
        SIGNED.replace("—", "-"),
        SIGNED.replace("— ", "—  "),
        SIGNED.replace("\n\n", "\n"),
        SIGNED + "\n",
        SIGNED.replace(NAME, NAME.replace("/", "\t"), 1),
        SIGNED.replace("=\n", "\n"),
        SIGNED + LINE.replace(NAME, "a+b"),
        SIGNED + LINE.replace(NAME, "a\u00a0b"),
        SIGNED + "— x AAAA\n",
        SIGNED + "— x AAAAAA==\n" * 100,
        SIGNED + "— x AAAAAB==\n",
        SIGNED.replace("\n", "\r\n"),
    ],
)
def test_what_is_no_note_is_refused(bad: str) -> None:
    with pytest.raises(Unverifiable):
        notes.verified(bad.encode(), {NAME: PUBLIC})


def test_bytes_that_are_no_text_and_notes_without_end_are_refused() -> None:
    for bad in (b"\xff" + note(), note() + b"x" * notes.NOTE_BYTES_MAX):
        with pytest.raises(Unverifiable):
            notes.parse(bad)


def test_the_text_ends_at_the_last_empty_line() -> None:
    assert notes.verified(note("a\n\nb\n"), {NAME: PUBLIC}) == "a\n\nb\n"


ROOT = CHECKPOINT.text().split("\n")[2]


@pytest.mark.parametrize(
    "bad",
    [
        f"{NAME}\n07\n{ROOT}\n",
        f"{NAME}\n-7\n{ROOT}\n",
        f"{NAME}\n+7\n{ROOT}\n",
        f"{NAME}\n7 \n{ROOT}\n",
        f"{NAME}\n{'9' * 5000}\n{ROOT}\n",
        f"{NAME}\n\u0667\n{ROOT}\n",
        f"{NAME}\n9223372036854775808\n{ROOT}\n",
        f"{NAME}\n7\n{ROOT}\nextension\n",
        f"{NAME}\n7\n{ROOT[:-1]}\n",
        f"{NAME}\n7\n{ROOT[:-2]}d=\n",
        f"{NAME}\n7\nAAAA\n",
        f"\n7\n{ROOT}\n",
        f"{NAME}\n7\n",
        f"{NAME}\n7\n{ROOT}",
    ],
)
def test_what_is_no_checkpoint_is_refused(bad: str) -> None:
    with pytest.raises(Unverifiable):
        notes.parse_checkpoint(bad)


@pytest.mark.parametrize(
    "bad", ["", "12\n", "\n12", "12\r\n", " 12", "12 ", "012", "1_2", "+12", "\u0661\u0662", "²", "9" * 19]
)
def test_a_number_has_one_spelling_and_ends_where_its_text_ends(bad: str) -> None:
    with pytest.raises(Unverifiable):
        notes.number(bad)
    assert [notes.number(good) for good in ("0", "12", str(2**63 - 1))] == [0, 12, 2**63 - 1]


def test_an_empty_tree_has_size_nought() -> None:
    assert notes.parse_checkpoint(f"{NAME}\n0\n{ROOT}\n").size == 0


@pytest.mark.parametrize("extra", [None, b"", b"\x00\xff"])
def test_a_proof_comes_back_as_it_was(extra: bytes | None) -> None:
    proof = Proof(index=3, path=(b"\x01" * 32, b"\x02" * 32), checkpoint=note(), extra=extra)
    text = notes.proof_text(proof)
    assert text.startswith(b"c2sp.org/tlog-proof@v1\n")
    assert notes.parse_proof(text) == proof


def test_a_proof_for_a_tree_of_one_has_no_path() -> None:
    proof = Proof(index=0, path=(), checkpoint=note())
    assert notes.parse_proof(notes.proof_text(proof)) == proof


PROOF = notes.proof_text(Proof(index=3, path=(b"\x01" * 32,), checkpoint=note()))


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        PROOF.replace(b"@v1", b"@v2"),
        PROOF.replace(b"index 3", b"index 03"),
        PROOF.replace(b"index 3\n", b""),
        PROOF.replace(b"index 3", b"index  3"),
        PROOF.replace(b"index 3\n", b"index 3\nAAAA\n"),
        PROOF.replace(b"index 3\n", b"index 3\n" + base64.b64encode(b"\x01" * 32) * 1 + b"\n" * 1 + b" \n"),
        PROOF.replace(b"index 3\n", b"index 3\n" + (base64.b64encode(b"\x01" * 32) + b"\n") * 63),
        PROOF.replace(b"index 3", b"extra !\nindex 3"),
        b"\xff" + PROOF,
        PROOF.partition(b"\n\n")[0],
    ],
)
def test_what_is_no_proof_is_refused(bad: bytes) -> None:
    with pytest.raises(Unverifiable):
        notes.parse_proof(bad)


@pytest.mark.parametrize("bad", ["", "a", "a+b", "a+00000000+AAAA", PETER_KEY.replace("c74f", "c74e"), PETER_KEY + "A"])
def test_what_is_no_verifier_key_is_refused(bad: str) -> None:
    with pytest.raises(Unverifiable):
        notes.parse_verifier_key(bad)


def test_a_name_that_a_note_cannot_carry_is_not_signed() -> None:
    for name in ("", "a b", "a+b", "a\nb"):
        with pytest.raises(Unverifiable):
            notes.sign("x\n", name=name, key=KEY)
    for text in ("", "no newline", "tab\t\n"):
        with pytest.raises(Unverifiable):
            notes.sign(text, name=NAME, key=KEY)
