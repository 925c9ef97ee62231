"""The exit code that a command has come to, noted before it prints: a reader that goes away must not change it."""

code = 0


def decided(value: int) -> int:
    """Note the code and return it."""
    global code
    code = value
    return value
