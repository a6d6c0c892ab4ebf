// Stock RocksDB's BackupEngine::VerifyBackup with checksums, of the newest backup: verify_backup BACKUP_DIR THREADS
#include <rocksdb/env.h>
#include <rocksdb/utilities/backup_engine.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  rocksdb::BackupEngineOptions options(argv[1]);
  options.max_background_operations = std::atoi(argv[2]);
  rocksdb::BackupEngineReadOnly* engine = nullptr;
  rocksdb::IOStatus status = rocksdb::BackupEngineReadOnly::Open(options, rocksdb::Env::Default(), &engine);
  if (status.ok()) {
    std::vector<rocksdb::BackupInfo> backups;
    engine->GetBackupInfo(&backups);
    if (backups.empty()) return 3;
    status = engine->VerifyBackup(backups.back().backup_id, true);
    delete engine;
  }
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
