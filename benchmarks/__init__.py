"""What ticketbench itself costs, measured by hand: one module, one command, one table each (README.md)."""
