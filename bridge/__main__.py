"""``python -m bridge`` and the console script ``orthanc-bridge``.

Worker processes import the main module of their parent: it must stay light.
"""


def main() -> None:
    """Run the command line."""
    from bridge.cli import run_command_line

    run_command_line()


if __name__ == "__main__":
    main()
