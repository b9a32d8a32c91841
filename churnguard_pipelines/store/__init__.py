"""PostgreSQL: a package per schema, the server itself in ``postgres``, and the secrets of an installation."""
