"""`python -m lam` is the command `lam`."""

from __future__ import annotations

from lam.cli import main

if __name__ == "__main__":
    main()
