"""Alembic runs this file, by its path, to run the migrations on the connection that it was given."""

from alembic import context

from stowkeeper.database.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
