"""`python -m nfcli.worker`: one worker process."""

from .process import main

if __name__ == "__main__":
    raise SystemExit(main())
