"""Peers that break the rules on purpose: callers (`caller.py`, `floods.py`) and a backend (`backend.py`)."""
