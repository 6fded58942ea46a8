"""Alembic migrations of the store; `schema_v1.sql` is the first one's DDL."""
