"""The database: engine, writer lock, schema and migrations."""
