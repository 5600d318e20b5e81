"""What a result holds: its protocol, where it comes from, its file, the ranks of each query."""
