"""Each stage is a function of (inputs, ports, on_event) to a typed result."""
