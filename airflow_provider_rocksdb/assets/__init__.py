"""What Airflow knows of databases and backup repositories as assets."""
