"""ClickHouse under its own access control: chDB behind HTTP, whose one user has the grants that a test gives it.

chDB can hold no users of ours, but it reads ClickHouse's configuration and users file, and enforces what stands there.
So each account is tried as the user `default` of an engine of its own, one after the other on the same data.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from storage.accounts import granted
from storage.clickhouse import Database
from storage.profiles import Account, Profile
from tests.support.clickhouse_http import Server

_CONFIG = """<clickhouse>
  <users_config>{users}</users_config>
  <tcp_port>9000</tcp_port>
  <zookeeper><implementation>testkeeper</implementation></zookeeper>
  <macros><shard>1</shard><replica>r1</replica></macros>
  <remote_servers><evidence><shard><replica><host>localhost</host><port>9000</port></replica></shard></evidence>
  </remote_servers>
  <access_control_improvements>
    <select_from_system_db_requires_grant>true</select_from_system_db_requires_grant>
    <table_engines_require_grant>true</table_engines_require_grant>
  </access_control_improvements>
</clickhouse>
"""
_USERS = """<clickhouse>
  <profiles><default>{settings}</default></profiles>
  <quotas><default></default></quotas>
  <users><default>
    <password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>{grants}
  </default></users>
</clickhouse>
"""
EVERYTHING = ("GRANT ALL ON *.*",)


def configured(place: Path, statements: Iterable[str], *, settings: str = "") -> Path:
    """A configuration file under which `default` has these grants; `settings` is XML of its settings profile."""
    place.mkdir(parents=True, exist_ok=True)
    plain = (re.sub(r" ON CLUSTER `\w+`", "", statement) for statement in statements)  # a users file is one server's
    queries = "".join(f"<query>{escape(statement.rpartition(' TO ')[0] or statement)}</query>" for statement in plain)
    (place / "users.xml").write_text(_USERS.format(grants=f"<grants>{queries}</grants>", settings=settings))
    config = place / "config.xml"
    config.write_text(_CONFIG.format(users=place / "users.xml"))
    return config


def grants_of(profile: Profile, *accounts: Account) -> list[str]:
    """What these accounts are granted together."""
    return [statement for account in accounts for statement in granted(account, "default", profile)]


class Restricted:
    """An engine on `path` under the given grants; `database` talks to it."""

    def __init__(self, path: Path, statements: Sequence[str], profile: Profile, *, settings: str = "") -> None:
        config = configured(path.parent / f"config-{abs(hash(tuple(statements)))}", statements, settings=settings)
        self.server = Server(path, config)
        self._profile = profile

    def __enter__(self) -> Database:
        self.server.start()
        values = {name: getattr(self._profile, name) for name in Profile.__dataclass_fields__}
        self.database = Database.open(Profile(**{**values, "url": self.server.url}))
        return self.database

    def __exit__(self, *_: object) -> None:
        self.database.close()
        self.server.kill()
