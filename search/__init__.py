"""Propose candidates, evaluate them, record what was found."""
