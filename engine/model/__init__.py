"""Values only: frozen, validated, serialisable. Imports nothing else of this project."""
