"""How pandas objects lie in Arrow tables; ``flightstore.connectors.pandas`` is the entrance.

A pandas object becomes one Arrow table, its index levels as columns after the values. What Arrow's types do
not say is kept as *facts*: JSON under the key ``flightstore.pandas``, of the schema for what concerns the
whole (`facts`), of a field for what concerns its column. A column whose Arrow type alone brings it back
carries none, so a column that somebody else adds is simply one without facts.

    facts      the metadata: what it says, and what becomes of it when columns come and go (no pandas needed)
    literals   Python and pandas scalars as JSON: labels, names, attrs, time zones, offsets
    buffers    NumPy memory as Arrow memory and back, not copied
    encode     pandas arrays to Arrow, by dtype;  objects: columns of Python objects
    decode     back again, by facts;  defaults: Arrow columns without facts
    indexes    indexes, both ways
    frames     whole frames and series, both ways
    sharing    frames that can be modified although their memory cannot; what is shared
"""
