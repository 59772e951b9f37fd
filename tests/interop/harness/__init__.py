"""What the interop, conformance and abuse programs share. Standard library only."""
