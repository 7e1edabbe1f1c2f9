"""The composition root: the only package that names concrete classes and puts the parts together."""
