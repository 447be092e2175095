"""What a user of the command line may do wrong."""


class UsageError(Exception):
    """Said without a traceback; the exit status is 2."""
