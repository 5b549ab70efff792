"""`python -m optimizer` is `dockeropt`."""

from optimizer.cli import app

app(prog_name="dockeropt")
