"""The first schema."""

import sqlite3
from importlib.resources import files

from alembic import op

revision = "v1"
down_revision = None


def upgrade() -> None:
    """Executes the DDL statement by statement (triggers hold semicolons of their own)."""
    source = files("selfreward.migrations").joinpath("schema_v1.sql").read_text(encoding="utf-8")
    statement = ""
    for line in source.splitlines():
        if line.startswith("--") and not statement:
            continue
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            op.get_bind().exec_driver_sql(statement)
            statement = ""


def downgrade() -> None:
    """There is nothing below the first schema."""
    raise RuntimeError("the first schema cannot be downgraded")
