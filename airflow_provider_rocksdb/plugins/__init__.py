"""The page "RocksDB backups" in Airflow's UI; no other part of the provider imports it."""
