"""The only modules that open sockets or read the clock."""
