"""What ``mist delta`` does, one command a file: deltas and checkpoints from files to files."""
