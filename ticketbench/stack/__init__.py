"""The system under test and what surrounds it, as something that can be started, changed and stopped."""

from ticketbench.stack.protocol import Component, Containers, DatabaseAccess, Endpoints, Servers, Stack

__all__ = ["Component", "Containers", "DatabaseAccess", "Endpoints", "Servers", "Stack"]
