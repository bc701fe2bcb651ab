"""Where ClickHouse is, of which kind, and as whom it is spoken to."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from config.fields import HttpUrl, Seconds, SecretReference, Section

User = Field(default="default", min_length=1, max_length=64, pattern=r"^[A-Za-z_][A-Za-z0-9_.@-]*$")


class Login(Section):
    """An account of the database."""

    user: str = User
    password: SecretReference | None = None


class Accounts(Section):
    """Accounts beside the writer; one that is not named is `storage.user`. Their grants: storage/accounts.py."""

    reader: Login | None = None
    projector: Login | None = None
    migrator: Login | None = None
    eraser: Login | None = None
    pruner: Login | None = None


class Storage(Section):
    """Which ClickHouse, and as whom."""

    profile: Literal["chdb", "server", "cluster", "cloud"] = "chdb"
    url: HttpUrl | None = None
    user: str = User  # the writer
    password: SecretReference | None = None
    accounts: Accounts = Accounts()
    database: str = Field(default="answerable", pattern=r"^[a-z][a-z0-9_]{0,62}$")
    cluster: str | None = Field(default=None, pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,62}$")  # as remote_servers names it
    insert_quorum: Literal["auto"] | int = "auto"  # replicas of a shard that must have an insert; auto: most of them
    allow_broad_grants: bool = False
    connect_timeout_s: Seconds = 5

    @model_validator(mode="after")
    def _a_server_has_an_address(self) -> Self:
        if self.profile != "chdb" and self.url is None:
            raise ValueError(f"url: profile {self.profile} needs the address of its HTTP interface")
        if self.profile == "chdb" and self.url is not None:
            raise ValueError("url: profile chdb is embedded and has no address")
        return self

    @model_validator(mode="after")
    def _only_what_the_profile_has(self) -> Self:
        if (self.cluster is not None) != (self.profile == "cluster"):
            raise ValueError("cluster: the cluster's name, given where profile is cluster, and only there")
        if self.profile != "cluster" and self.insert_quorum != "auto":
            raise ValueError(f"insert_quorum: profile {self.profile} has no replicas that we would have to wait for")
        if isinstance(self.insert_quorum, int) and not 2 <= self.insert_quorum <= 99:
            raise ValueError(f"insert_quorum: expected auto or 2 to 99 replicas, not {self.insert_quorum}")
        if self.profile == "chdb" and self.accounts != Accounts():
            raise ValueError("accounts: profile chdb has no access control")
        return self

    def logins(self) -> dict[str, Login]:
        """Every account that is named, the writer among them, by what it is for."""
        found = {"writer": Login(user=self.user, password=self.password)}
        for name in Accounts.model_fields:
            login = getattr(self.accounts, name)
            if login is not None:
                found[name] = login
        return found
