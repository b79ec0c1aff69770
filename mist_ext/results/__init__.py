"""What a run has measured: one typed record, its metrics, and what was published."""
