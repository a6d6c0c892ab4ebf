"""RocksDB's on-disk formats: bytes in, values out. Nothing below opens a file, reads a clock or logs."""
