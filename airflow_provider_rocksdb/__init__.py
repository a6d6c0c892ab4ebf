"""Apache Airflow provider that backs up RocksDB databases while another process is writing them."""

__version__ = "0.1.0"
