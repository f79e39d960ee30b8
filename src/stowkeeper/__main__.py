"""Run Stowkeeper as `python -m stowkeeper`."""

from stowkeeper.app.commands import main

main()
