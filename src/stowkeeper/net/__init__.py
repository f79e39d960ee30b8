"""DIMSE over asyncio, both roles; what to do with a message is passed in."""
