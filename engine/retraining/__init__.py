"""Training the forecaster again: when, as a durable workflow, and what came of it."""
