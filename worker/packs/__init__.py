"""Language and domain packs of a running worker: found, chosen by jobs, loaded when asked for."""
