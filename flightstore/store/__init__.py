"""Store: the one facade. Orchestrates the rooms and holds no mechanism of its own.

`local` has the store on this machine: putting, getting, deleting, looking. Its other parts are mixins, one
file each, named like the parts of the contract in flightstore.abc.
"""

from flightstore.store.local import Store, connect
from flightstore.store.session import Session

__all__ = ["Session", "Store", "connect"]
