"""A run in the browser: pages made by the server, a small script for keys, nothing from anywhere else.

Model text is data: every page is escaped, forbids inline script by its headers, and shows what can't be seen.
It reads with a connection of its own beside a run that writes, and writes reviews alone.
"""
