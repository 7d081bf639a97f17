"""flightstore lets programs share data frames at the speed of memory."""
