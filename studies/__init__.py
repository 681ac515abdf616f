"""A study and its run: definition, records read back, front, report, pick, ship, verify."""
