"""The commands of `hogwild`, one module each; cli.py adds them to the group."""
