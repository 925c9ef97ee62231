"""``python -m ticketbench``."""

from ticketbench.cli import main

if __name__ == "__main__":
    main()
