"""`python -m trioktor` is the `trioktor` command."""

from .cli import main

if __name__ == "__main__":
    main()
