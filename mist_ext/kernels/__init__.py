"""The ops on lists of tensors, compiled for CPU and CUDA, and their reference in plain PyTorch."""
