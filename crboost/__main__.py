"""`python -m crboost`: the `crboost` command."""

from crboost.cli import main

if __name__ == "__main__":
    main()
