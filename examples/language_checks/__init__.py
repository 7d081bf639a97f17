"""What languages.py and the tests have in common; nothing here needs to be copied."""
