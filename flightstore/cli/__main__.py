"""``python -m flightstore.cli`` is the command ``flightstore``."""

from flightstore.cli.main import main

main()
