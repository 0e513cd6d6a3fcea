"""Many images: read from wherever they are listed, submitted in chunks, their captions written.

`captionq caption` is command.py; from Python, a `Request` is run by a `Session`.
"""
