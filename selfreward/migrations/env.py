"""Runs the migrations on the connection the store hands over.

Batch mode, for SQLite alters a table by copying it.
"""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"], target_metadata=None, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
