"""Texts of the `code_hacking` scenario, one module a theme; `code_hacking.py` combines them."""
