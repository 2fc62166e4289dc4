"""What features and connections say about transfer, and the theory that says why."""
