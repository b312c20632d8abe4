"""The command line `hogwild`: one module a command, and what they share."""
