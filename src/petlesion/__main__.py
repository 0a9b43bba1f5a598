"""Runs the command line as `python -m petlesion`."""

from petlesion.cli.main import main

if __name__ == "__main__":
    main()
