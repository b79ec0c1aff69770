"""What a batch costs each tuner and method, measured on this machine without any data set."""
