"""What the client does, without doing any I/O: programs that yield effects, run by either transport."""
