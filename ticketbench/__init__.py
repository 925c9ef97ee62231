"""ticketbench: load tests of a ticket sale whose results can be trusted."""

__version__ = "0.1.0"
