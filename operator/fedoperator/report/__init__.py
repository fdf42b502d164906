"""A training and its rounds as one page of HTML: values in, text out, the same text every time.

`figures` are read off the records (`timing`, `curves`, `participants`, `losses`), `page` writes
them down, once as tables and once as JSON, which the scripts beside this file draw.
"""
