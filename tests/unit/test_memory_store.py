"""MemoryStore: the contract, within one object."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mqtt_token_client.stores.memory import MemoryStore
from tests.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def opened(self) -> Callable[[], MemoryStore]:
        store = MemoryStore()
        return lambda: store
