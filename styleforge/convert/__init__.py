"""Other projects' weights: their names and layouts, turned into ours and back, exactly."""
