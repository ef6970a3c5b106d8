"""``python -m asyncpush``: the command line."""

from asyncpush.cli.main import main

if __name__ == "__main__":
    main()
