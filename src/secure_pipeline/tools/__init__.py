"""Third-party programs: pins, location, and the only place that spawns."""
