"""``python -m secure_pipeline``."""

from secure_pipeline.cli.main import main

if __name__ == "__main__":
    main()
