"""The gateway: one process that serves a store to other machines and languages.

- access, authentication, tokens: what callers may do; who calls; the tokens file
- service: what every call does to the store, whatever it came by
- incoming, outgoing: uploads of any size into the store; tables and payloads out of it
- flight, http: the two servers, which translate and do nothing else
- mediated: a socket for processes that map the store without being its clients
- settings, listeners, limits, tls: options, environment and file; where it may listen, what it takes on
- process, signals, sockets, health, logs: start, bounded end, reload; what is bound, answered, logged

Calls go one way: process -> flight, http, mediated -> service -> incoming, outgoing -> store, lifecycle.
"""
