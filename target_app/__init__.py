"""A ticket sale: the system under test."""
