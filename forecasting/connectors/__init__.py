"""Where usage comes from: one file per kind of source, each a ``Connector``."""
