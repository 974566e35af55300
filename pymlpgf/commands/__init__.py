"""The command `pymlpgf`."""
