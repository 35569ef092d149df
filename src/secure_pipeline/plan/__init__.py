"""One plan of the stages, and its renderings for engines."""
