"""The conformance suite of stores: whoever implements AbstractStore, ours or a stranger, runs the same tests.

    from flightstore.testing.stores import Capability, StoreSuite

    class TestMyStore(StoreSuite):
        capabilities = Capability.PROCESSES | Capability.COMPOSITION

        def make_store(self, capacity_bytes): return my_package.connect(new_place(), capacity_bytes)
        def another_client(self, store): return my_package.connect(store.place)
        def start_in_client(self, store, function, *args): ...

- backend: what the author of a backend provides, and the capabilities that a backend may declare
- one file for each part of the contract, with the tests of that part
- suite: `StoreSuite`, all of them together
- types: `StoreTypeSuite`, every type and layout through the store; needs hypothesis, too

The tests use the public interface alone. What a backend does not declare is left out, by name; what it
declares is tested. Needs pytest.
"""

from flightstore.testing.stores.backend import Backend, Capability, Running
from flightstore.testing.stores.suite import StoreSuite

__all__ = ["Backend", "Capability", "Running", "StoreSuite"]
