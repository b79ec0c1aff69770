"""One run on many processes, by torch.distributed: who has which rows, what is gathered, what all must agree on."""
