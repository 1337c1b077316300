"""What a run tells its user on the page, in the log and in a report."""
