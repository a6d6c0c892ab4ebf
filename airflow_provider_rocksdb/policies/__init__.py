"""Policies that a DAG author gives to tasks."""
