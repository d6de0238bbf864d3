"""Leases and markers on Redis, next to what its bare commands can do and next to other lock libraries.

Not named ``redis``: a program in the folder above would import it instead of the client library.
"""
