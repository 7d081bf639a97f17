"""What happens to objects over time: creation, sealing, reading, freeing, recovery, and the checks.

May call memory, catalog and objects. The functions here take a Connection (this process's view of one store)
and are what the Store facade orchestrates.
"""
