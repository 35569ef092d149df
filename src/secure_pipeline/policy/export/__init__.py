"""The trusted policy in the words of what enforces it elsewhere. Nothing here applies anything."""
