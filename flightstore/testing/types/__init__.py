"""The type suite: values of every type, and equality."""
