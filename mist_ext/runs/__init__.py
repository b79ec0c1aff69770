"""Whole experiments: from a configuration to the files in its folder, begun, interrupted and gone on with."""
