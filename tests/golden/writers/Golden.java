// Write a golden database through RocksDB's Java API: Golden DIRECTORY; prints what RocksDB says.
// DIRECTORY/work/db is the database while it is open, DIRECTORY/db the copy that is kept.

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.StringJoiner;
import java.util.stream.Stream;
import org.rocksdb.*;

public class Golden {
  static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  public static void main(String[] arguments) throws Exception {
    RocksDB.loadLibrary();
    Path place = Path.of(arguments[0], "work", "db");
    Files.createDirectories(place);
    DBOptions options = new DBOptions().setCreateIfMissing(true).setCreateMissingColumnFamilies(true)
        .setAtomicFlush(true).setRecycleLogFileNum(2).setWriteDbidToManifest(true);
    ColumnFamilyOptions family = new ColumnFamilyOptions().setDisableAutoCompactions(true);
    List<ColumnFamilyDescriptor> descriptors = List.of(
        new ColumnFamilyDescriptor(RocksDB.DEFAULT_COLUMN_FAMILY, family),
        new ColumnFamilyDescriptor(new byte[] {'c', 'a', 'f', (byte) 0xe9}, family));
    List<ColumnFamilyHandle> handles = new ArrayList<>();
    RocksDB db = RocksDB.open(options, place.toString(), descriptors, handles);
    for (int step = 0; step < 6; step++) {
      for (ColumnFamilyHandle handle : handles) {
        for (int number = 0; number < 20; number++) {
          db.put(handle, bytes(String.format("%06d", step * 10 + number)), bytes("value"));
        }
      }
      if (step < 5) {
        db.flush(new FlushOptions(), handles);
      }
    }
    StringJoiner files = new StringJoiner(",", "{", "}");
    for (LiveFileMetaData file : db.getLiveFilesMetaData()) {
      int number = Integer.parseInt(file.fileName().replaceAll("\\D", ""));
      files.add(String.format("\"%d\": [%d, %d]", number, file.size(), file.level()));
    }
    copy(place, Path.of(arguments[0], "db"));
    System.out.printf("{\"latest_sequence_number\": %d, \"live_files\": {\"*\": %s}}%n",
        db.getLatestSequenceNumber(), files);
    Runtime.getRuntime().halt(0); // as a process that dies: nothing is closed
  }

  static void copy(Path from, Path to) throws Exception {
    Files.createDirectories(to);
    try (Stream<Path> names = Files.list(from)) {
      for (Path path : names.toList()) {
        Files.copy(path, to.resolve(path.getFileName()));
      }
    }
  }
}
