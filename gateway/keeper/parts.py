"""What a process holds once it has opened the data: keys, database, journals to read, models. Nothing runs yet."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from config.load import Configuration
from config.secrets import reveal
from gateway.keeper.logrounds import LogRounds
from gateway.keeper.models import Models
from gateway.keeper.shipping import Shipping
from gateway.keeper.tail import Library
from storage.clickhouse import Database
from storage.durable import make_directory
from storage.keys import Keyring
from storage.profiles import Profile

SHARD = "keeper"


def profile_of(configuration: Configuration) -> Profile:
    """Which database the configuration names, with the passwords of its accounts.

    Raises:
        ConfigError: a password is not where the configuration says.
    """
    storage = configuration.settings.storage
    passwords = {
        name: reveal(login.password, base=configuration.base, environ=os.environ)
        for name, login in storage.logins().items()
        if login.password is not None
    }
    return Profile.of(storage, data=configuration.data, passwords=passwords)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The data, opened; whoever embeds the database holds the data lock besides."""

    configuration: Configuration
    keyring: Keyring
    database: Database
    library: Library
    shipping: Shipping
    models: Models

    @classmethod
    async def open(cls, configuration: Configuration) -> Parts:
        """Open keys (made where missing), the database handle (which connects at its first call), and the journals.

        Raises:
            ConfigError: a password of the database is not where the configuration says.
            StorageError: keys are damaged.
            OSError: the directory cannot be made or read.
        """
        data = configuration.data
        await asyncio.to_thread(make_directory, data / "ship")
        keyring = await asyncio.to_thread(Keyring.open, data, create=True)
        database = Database.open(profile_of(configuration))
        library = Library(data)
        await library.look()
        shipping = Shipping(
            library=library,
            database=database,
            ship=data / "ship",
            own=SHARD,
            log_key=keyring.log,
            checkpoint_s=configuration.settings.keeper.checkpoint_s,
            rounds=LogRounds(
                data / "ship",
                configuration.settings.deployment,
                key=keyring.log,
                every_s=configuration.settings.ledger.log_s,
            ),
        )
        return cls(
            configuration=configuration,
            keyring=keyring,
            database=database,
            library=library,
            shipping=shipping,
            models=await asyncio.to_thread(Models, data),
        )

    async def close(self) -> None:
        """Let everything go."""
        self.shipping.close()
        self.library.close()
        await asyncio.to_thread(self.database.close)
