"""Planning step by step: small decisions, repeated, that learn what the market does not tell."""
