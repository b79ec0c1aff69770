"""Tables in one form each: every renderer takes `mist_ext.report.table.Tables` and nothing else."""
