"""Language models behind one protocol, always in a child process (`client` starts it, `child` is it)."""
