"""Cosignatures and the words with a witness, against the specification's examples and an independent signer."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storage import cosignatures, merkle, notes, tiles
from storage.cosignatures import Witness
from storage.errors import Unverifiable
from storage.notes import Checkpoint
from tests.support import witness as independent
from tests.unit.test_tiles import Shelf, leaves

LOG = "acme/log"
KEY = Ed25519PrivateKey.from_private_bytes(b"\x05" * 32)
CHECKPOINT = Checkpoint(origin=LOG, size=7, root=b"\x07" * 32)
NOTE = notes.sign(CHECKPOINT.text(), name=LOG, key=KEY)

# The example request of c2sp.org/tlog-witness (commit 5ba5ee8 of github.com/C2SP/C2SP, CC-BY-4.0)
EXAMPLE = """old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
""".encode()  # noqa: E501
# The example of c2sp.org/tlog-cosignature: the same checkpoint, cosigned at 1679315147
COSIGNED = (
    "— witness.example.com/w1"
    " jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)


@pytest.fixture
def signer() -> independent.Witness:
    made = independent.Witness("witness.example/w1", {LOG: KEY.public_key().public_bytes_raw()})
    made.close()
    return made


def known(signer: independent.Witness) -> Witness:
    return Witness(name=signer.name, public=signer.public)


def test_the_published_request_is_made_byte_for_byte() -> None:
    path = [base64.b64decode(line) for line in EXAMPLE.split(b"\n")[1:5]]
    made = cosignatures.request(old_size=20852014, path=path, note=EXAMPLE.partition(b"\n\n")[2])
    assert made == EXAMPLE


def test_the_published_cosignature_states_its_time_and_is_by_nobody_we_know() -> None:
    (line,) = notes.parse(b"example.com/behind-the-sofa\n20852163\n\n" + COSIGNED.encode()).signatures
    assert int.from_bytes(line.signature[:8], "big") == 1679315147
    other = Witness(name="witness.example.com/w1", public=bytes(32))
    note = EXAMPLE.partition(b"\n\n")[2] + COSIGNED.encode()
    assert cosignatures.cosigned(note, [other]) == {}


def test_a_cosignature_by_an_independent_signer_verifies_with_its_time(signer: independent.Witness) -> None:
    answer = signer.cosign(CHECKPOINT.text().encode(), now_s=1_679_315_147)
    line, time_s = cosignatures.answered(b"\xe2\x80\x94 other AAAAAAAA\n" + answer, NOTE, known(signer))
    assert (line.encode(), time_s) == (answer, 1_679_315_147)
    whole = cosignatures.with_cosignatures(NOTE, {signer.name: line})
    assert cosignatures.cosigned(whole, [known(signer)]) == {signer.name: 1_679_315_147}
    assert notes.verified_checkpoint(whole, origin=LOG, public=KEY.public_key().public_bytes_raw()) == CHECKPOINT


def test_a_changed_byte_anywhere_in_a_cosignature_is_refused(signer: independent.Witness) -> None:
    answer = signer.cosign(CHECKPOINT.text().encode())
    for at in range(len(answer)):
        changed = answer[:at] + bytes([answer[at] ^ 1]) + answer[at + 1 :]
        with pytest.raises(Unverifiable):
            cosignatures.answered(changed, NOTE, known(signer))


def test_a_cosignature_over_another_checkpoint_or_without_a_time_is_refused(signer: independent.Witness) -> None:
    other = Checkpoint(origin=LOG, size=7, root=b"\x08" * 32).text().encode()
    for answer in (
        signer.cosign(other),
        signer.cosign(CHECKPOINT.text().encode(), now_s=0),
        signer.cosign(CHECKPOINT.text().encode(), now_s=2**63),
        b"",
        b"\n",
    ):
        with pytest.raises(Unverifiable):
            cosignatures.answered(answer, NOTE, known(signer))


def test_a_log_signature_by_the_witness_key_is_no_cosignature(signer: independent.Witness) -> None:
    line = notes.sign(CHECKPOINT.text(), name=signer.name, key=signer._key).split(b"\n\n", 1)[1]
    with pytest.raises(Unverifiable):
        cosignatures.answered(line, NOTE, known(signer))
    assert cosignatures.cosigned(NOTE + line, [known(signer)]) == {}


def test_a_verifier_key_comes_back_as_it_was_and_other_spellings_are_refused(signer: independent.Witness) -> None:
    assert cosignatures.parse_witness(signer.vkey) == known(signer)
    assert known(signer).key == signer.vkey
    name, identity, _ = signer.vkey.split("+", 2)
    for wrong in (
        "",
        name,
        notes.verifier_key(name, signer.public),  # a log's key
        signer.vkey + "=",
        signer.vkey.replace(identity, "00000000"),
        signer.vkey.replace(identity, identity.upper()) if identity != identity.upper() else "",
        f"+{identity}+x",
    ):
        with pytest.raises(Unverifiable):
            cosignatures.parse_witness(wrong)


@pytest.mark.parametrize("body", [b"", b"7", b"07\n", b"-1\n", b"7\n7\n", b"\xff\n", b"7 \n", b"9223372036854775808\n"])
def test_a_size_in_another_spelling_is_refused(body: bytes) -> None:
    with pytest.raises(Unverifiable):
        cosignatures.conflicting_size(body)
    assert cosignatures.conflicting_size(b"7\n") == 7


@given(size=st.integers(1, 1_200), data=st.data())
@example(size=512, data=None)
@settings(max_examples=60, deadline=None)
def test_a_consistency_path_from_tiles_is_that_of_the_whole_tree(size: int, data: st.DataObject | None) -> None:
    old = data.draw(st.integers(1, size)) if data else size // 2
    of = leaves(size)
    path = tiles.consistency_path(old, size, Shelf(of))
    assert path == merkle.consistency_path(of, old)
    roots = merkle.root_of(of[:old]), merkle.root_of(of)
    merkle.verify_consistency(old_size=old, old_root=roots[0], size=size, root=roots[1], path=path)
    assert old == size or independent.grows(*roots, old, size, path)
    assert old == size or not independent.grows(*roots, old, size, [*path, bytes(32)])
    assert old == size or not independent.grows(bytes(32), roots[1], old, size, path)


def test_there_is_no_consistency_path_from_nothing_or_from_a_larger_tree() -> None:
    for old in (0, 6):
        with pytest.raises(Unverifiable):
            tiles.consistency_path(old, 5, Shelf(leaves(5)))
