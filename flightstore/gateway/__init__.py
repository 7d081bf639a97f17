"""The gateway: one process that serves a store to other machines and languages.

- access: who calls, with which rights, in which session; tokens
- service: what every call does to the store, whatever it came by
- incoming, outgoing: uploads of any size into the store; tables and payloads out of it
- flight, http: the two servers, which translate and do nothing else
- settings, process: flags, environment and file; start, health, signals, bounded shutdown

Calls go one way: process -> flight, http -> service -> incoming, outgoing -> store, lifecycle.
"""
