"""Which other programs find the evidence of an image, and which accept it."""
