"""The page "RocksDB backups", in a real browser, in a real Airflow."""
