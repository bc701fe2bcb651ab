"""Random calls, ends, crashes, erasures and days against the real table: no key runs twice, no answer is another's."""

import contextlib
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from gateway.proxy.errors import KeyReused, NotRepeated
from gateway.proxy.idempotency import judge
from storage.firsts import ANSWER_BYTES_MAX, KEPT_S, NS, Asking, First
from storage.repeats import Repeats, erase

LEASE_NS = 600 * NS
KEYS, BODIES, SHARDS = ("k1", "k2"), (b"body 1", b"body 2"), ("gateway-0", "gateway-1")


class Machine(RuleBasedStateMachine):
    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.data = Path(tempfile.mkdtemp())
        self.now_ns = 1_790_000_000 * NS
        self.lives = dict.fromkeys(SHARDS, 0)
        self.tables: dict[str, Repeats] = {}
        for shard in SHARDS:
            self.begin(shard)
        self.number = 0
        # key → (decision, body, state, answer, claimed at, shard)
        self.known: dict[str, dict] = {}
        self.closed: set[str] = set()

    def begin(self, shard: str) -> None:
        self.lives[shard] += 1
        self.tables[shard] = Repeats.open(self.data, shard=shard, incarnation=bytes([self.lives[shard]]) * 16)

    def teardown(self) -> None:
        for table in self.tables.values():
            table.close()
        shutil.rmtree(self.data)

    def current(self, decision: str) -> dict | None:
        return next((one for one in self.known.values() if one["decision"] == decision), None)

    def may_end(self, decision: str) -> dict | None:
        one = self.current(decision)
        return one if one is not None and one["state"] == "running" else None

    @rule(target=running, key=st.sampled_from(KEYS), body=st.sampled_from(BODIES), shard=st.sampled_from(SHARDS))
    def call(self, key: str, body: bytes, shard: str) -> str:
        self.number += 1
        decision = f"d{self.number}"
        asking = Asking(
            scope=(b"t", b"a", key.encode()),
            content=(b"POST", b"/", body),
            decision=decision,
            now_ns=self.now_ns,
            lease_ns=self.now_ns + LEASE_NS,
        )
        table = self.tables[shard]
        with table.transaction():
            found = table.claim(asking)
        one = self.known.get(key)
        if one is not None and self.now_ns >= one["at"] + KEPT_S * NS:
            one = None
        if one is None:
            assert found is None, "the key is free"
            self.known[key] = {
                "decision": decision, "body": body, "state": "running", "answer": b"", "at": self.now_ns,
                "shard": shard, "life": self.lives[shard],
            }  # fmt: skip
            return decision
        assert found is not None, "the model would run twice"
        assert found.decision == one["decision"]
        self.told(found, one, body)
        return one["decision"]

    def told(self, found: First, one: dict, body: bytes) -> None:
        try:
            first = judge(found, now_ns=self.now_ns)
        except KeyReused:
            assert body != one["body"]
            assert one["state"] != "erased"
        except NotRepeated as error:
            assert one["state"] != "kept"
            code = error.code
            in_flight = one["state"] == "running" and self.now_ns < one["at"] + LEASE_NS
            assert (code == "idempotency_in_flight") is in_flight
        else:
            assert one["state"] == "kept"
            assert body == one["body"]
            assert (first.status, first.head, first.body) == (200, b"head", one["answer"])

    @rule(decision=running, size=st.sampled_from([0, 7, ANSWER_BYTES_MAX]), shard=st.sampled_from(SHARDS))
    def answer(self, decision: str, size: int, shard: str) -> None:
        body = decision.encode().ljust(size, b".")[: max(size, 1)]
        with self.tables[shard].transaction():
            self.tables[shard].keep(decision, 200, b"head", body, now_ns=self.now_ns)
        if (one := self.may_end(decision)) is not None:
            one.update(state="too_large" if len(body) + 4 > ANSWER_BYTES_MAX else "kept", answer=body)

    @rule(decision=running, state=st.sampled_from(["incomplete", "unkept", "lost"]), shard=st.sampled_from(SHARDS))
    def settle(self, decision: str, state, shard: str) -> None:
        with self.tables[shard].transaction():
            self.tables[shard].settle(decision, state)
        if (one := self.may_end(decision)) is not None:
            one["state"] = state

    @rule(decision=running, shard=st.sampled_from(SHARDS))
    def release(self, decision: str, shard: str) -> None:
        with self.tables[shard].transaction():
            self.tables[shard].release(decision)
        if self.may_end(decision) is not None:
            self.known = {key: one for key, one in self.known.items() if one["decision"] != decision}

    @rule(decision=running)
    def erase(self, decision: str) -> None:
        found = erase(self.data, [decision])
        one = self.current(decision)
        if one is not None:
            assert found == 1 or self.now_ns >= one["at"] + KEPT_S * NS
            one["state"] = "erased"

    @rule(shard=st.sampled_from(SHARDS))
    def crash(self, shard: str) -> None:
        with contextlib.suppress(ValueError), self.tables[shard].transaction():
            raise ValueError  # what was not committed is not there
        self.tables[shard].close()
        for one in self.known.values():
            if one["state"] == "running" and one["shard"] == shard:
                one["state"] = "lost"
        self.begin(shard)

    @rule(hours=st.sampled_from([0.1, 1, 11, 23]), shard=st.sampled_from(SHARDS))
    def pass_time(self, hours: float, shard: str) -> None:
        self.now_ns += int(hours * 3600) * NS
        with self.tables[shard].transaction():
            self.tables[shard].expire(now_ns=self.now_ns)

    @invariant()
    def day_keys_outlive_their_answers_and_nothing_else(self) -> None:
        assert len(list((self.data / "idempotency").glob("2*.key"))) <= 3


Machine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestRepeats = Machine.TestCase
