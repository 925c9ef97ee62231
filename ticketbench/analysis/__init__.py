"""What is concluded from a stored run: pure functions, no input or output."""
