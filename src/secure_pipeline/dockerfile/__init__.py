"""Reading, checking and rewriting Dockerfiles and build contexts, without any tool."""
