"""The check of the log of logs, on leaves that a thief of the log key could sign."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from storage import logleaves, merkle, notes
from storage.findings import Findings, Verdict
from storage.logcheck import LeafLine, LogCheck
from storage.logleaves import Draft, encode
from storage.merkle import leaf_hash
from storage.notes import Checkpoint
from storage.segment import vouch_text
from storage.verify import Signature

LOG, SHARD = "acme/log", "acme/gateway-0/1"
KEY = Ed25519PrivateKey.from_private_bytes(b"\x05" * 32)
HOST, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
PROCESS = Ed25519PrivateKey.from_private_bytes(b"\x03" * 32).public_key().public_bytes_raw()


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def opening(host: Ed25519PrivateKey = HOST, shard: str = SHARD) -> Draft:
    vouch = host.sign(vouch_text(shard, PROCESS))
    return logleaves.opening(SHARD, 0, process_key=PROCESS, host_key=public(host), vouch=vouch)


def checkpoint(size: int, key: Ed25519PrivateKey = KEY) -> Draft:
    text = Checkpoint(origin=SHARD, size=size, root=bytes(32)).text()
    return logleaves.checkpoint(SHARD, size, notes.sign(text, name=SHARD, key=key))


def checked(*drafts: Draft, key: Ed25519PrivateKey = KEY, hosts: set[bytes] | None = None) -> dict[str, str]:
    """What is broken: claim → detail, of a log that is well made of these leaves and signed by `key`."""
    leaves = [encode(draft, log=LOG, n=n, ts_ns=n) for n, draft in enumerate(drafts)]
    root = merkle.root_of([leaf_hash(leaf.raw) for leaf in leaves])
    note = notes.sign(Checkpoint(origin=LOG, size=len(leaves), root=root).text(), name=LOG, key=key).decode()
    findings = Findings(LOG)
    check = LogCheck(
        findings,
        public=public(KEY),
        host_keys={public(HOST)} if hosts is None else hosts,
        checkpoints=iter([Signature(len(leaves), note, root)]),
        leaves=iter(()),
    )
    for leaf in leaves:
        check.feed(LeafLine(leaf.n, leaf.ts_ns, leaf.kind, leaf.shard, leaf.size, leaf.raw, leaf_hash(leaf.raw)))
    check.finish(len(leaves))
    return {claim.name: claim.detail for claim in findings.claims() if claim.verdict is Verdict.FAIL}


def test_a_log_that_is_well_made_passes() -> None:
    assert checked(opening(), checkpoint(3), logleaves.closing(SHARD, 3)) == {}


def test_a_shards_checkpoint_that_the_log_key_did_not_sign_is_no_checkpoint() -> None:
    assert "no signature by" in checked(opening(), checkpoint(3, STRANGER))["log"]


def test_a_process_key_for_which_no_known_host_vouches_is_named() -> None:
    assert "a host vouches that is not known" in checked(opening(STRANGER))["log"]
    assert "no host vouches" in checked(opening(shard="acme/gateway-1/1"))["log"]


def test_a_log_signed_by_another_key_is_named() -> None:
    assert "no signature by" in checked(opening(), key=STRANGER)["checkpoints"]
