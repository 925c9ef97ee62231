"""The payment provider: a service of its own that takes its time, declines, queues, and charges a key once."""
