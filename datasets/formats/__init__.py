"""Other projects' formats of demonstrations, to and from the episode store.

Each module has `read(path, output, ...)`, which makes a store of a foreign data set, and `write(store, path, ...)`.
"""
