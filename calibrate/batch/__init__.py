"""Score an archive with Ray Data: many workers, resumable, exactly one result per image."""
