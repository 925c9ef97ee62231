"""Reports: each is a function from a judged run to bytes. Only the caller writes them."""
