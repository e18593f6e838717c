"""`python -m nervus`: the same as the `nervus` command."""

from nervus.cli import main

if __name__ == "__main__":
    main()
