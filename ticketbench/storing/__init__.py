"""The rooms of store.py: files that are whole or absent, and what is many rows long kept as columns."""
