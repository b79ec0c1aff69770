"""One run on many processes, by torch.distributed: batch rows, sharded tensors, and what all ranks agree on."""
