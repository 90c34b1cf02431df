"""Stand-ins for the parts of Home Assistant that the example uses, with their names and signatures of 2026.11."""
