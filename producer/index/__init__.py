"""Search over what was captioned: captions and embeddings of images, kept in LanceDB.

`captionq index` is commands.py, `captionq search` find.py; from Python, a `VectorIndex` is opened
at a `Place`. LanceDB (`pip install "captionq[search]"`) is imported where it is first needed.
"""
