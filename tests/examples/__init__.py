"""The examples for users of the library, run as they stand."""
