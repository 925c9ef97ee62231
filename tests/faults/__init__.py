"""Faults, one at a time: a real run is brought to a chosen moment, something of it is broken, and what follows is held
against what ticketbench promises. ``python -m tests.faults`` tries all of them and writes the table of docs/faults.md.
"""
