"""What the report tells of a stage, read from the files it left: sentences, figures, tables."""
