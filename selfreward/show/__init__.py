"""What the commands print: tables, one pair in full, and the progress of a run.

Plain text when not a terminal. Model text is shown with its control characters made visible and is never
read as markup.
"""
