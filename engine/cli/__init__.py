"""The command ``shardwright``: thin; the same verbs as the API, and no rules inside."""


def main() -> None:
    """Entry point: run, then turn errors of the vocabulary into a message and an exit code."""
    from engine.cli.main import run

    run()
