"""Files, names, memory and progress: no word of learning."""
