"""What must not be lost: database, artifacts, datasets."""
