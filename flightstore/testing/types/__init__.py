"""The conformance suite of types: whoever moves values, store, transport or plug-in, runs the same tests.

- equality: `assert_same`, exact equality of values, with a message that says where they part
- arrow, numpy: catalogues, one readable value for each type and each layout in memory
- strategies, numpy: the same, generated
- suite: `TypeSuite`, the tests; derive from it and say how a value travels

The strategies and the suite need hypothesis, the suite pytest too; nothing here is imported by flightstore.
"""
