"""What gateways and their clients say to each other, described for every language in docs/protocol.md.

- messages: tickets, commands, and the requests and replies of all actions, as msgspec structs
- faults: errors of the store as data, and back
- frames: a payload with its header, as our own client sends and receives it

Nothing here opens a connection or a store.
"""
