"""The commands of ``python -m airflow_provider_rocksdb``: the core from a shell, without Airflow."""
