"""`python -m nodelens` is the command `nodelens`."""

from nodelens.cli import main

if __name__ == "__main__":
    main()
