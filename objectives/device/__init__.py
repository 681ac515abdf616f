"""What runs on a device: models, their times and profiles, and the runner that does so for a search on another machine.

Nothing here needs more than the standard library, NumPy and the runtime; of slimfront only `PACKED` (`pack.py`).
"""
