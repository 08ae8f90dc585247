"""What several commands take on their command lines: how it is read and checked."""
