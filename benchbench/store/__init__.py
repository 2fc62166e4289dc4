"""What is kept on disk, under keys."""
