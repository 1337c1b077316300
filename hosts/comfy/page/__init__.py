"""What a run tells its user: on the page, in the log, in a report."""
