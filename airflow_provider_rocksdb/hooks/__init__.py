"""Connection to a database and to the storage of its backups."""
