"""How argument values become JSON and come back equal. ``task.payload`` is the way in."""
